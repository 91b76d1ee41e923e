variable "topic" {
  description = "The topic's name, as fanout.NewTopic has it."
  type        = string
  default     = "payments"
}

variable "queues" {
  description = "The queues by their names, as Subscribe and OpenQueue have them, each with what is its own."
  type = map(object({
    filter_policy      = optional(string) # SNS's JSON, as WithFilterPolicy has it
    visibility_timeout = optional(number, 30)
    retention          = optional(number, 345600)
  }))
  default = {
    inventory = {}
    shipping  = {}
  }
}

variable "fifo" {
  description = "Whether the topic is made WithOrdering or WithDeduplication."
  type        = bool
  default     = false
}
