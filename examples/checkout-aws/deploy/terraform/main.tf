# What fanoutaws makes by itself, for those who want it made by Terraform: give
# the engine fanoutaws.WithExisting(). The names are its defaults.

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

locals {
  suffix = var.fifo ? ".fifo" : ""

  # A queue's policy names the queue, which does not exist yet.
  arns = { for name, q in var.queues : name =>
    "arn:${data.aws_partition.this.partition}:sqs:${data.aws_region.this.name}:${data.aws_caller_identity.this.account_id}:${var.topic}-${name}${local.suffix}"
  }
}

resource "aws_sns_topic" "topic" {
  name       = "${var.topic}${local.suffix}"
  fifo_topic = var.fifo
}

resource "aws_sqs_queue" "dead" {
  for_each                  = var.queues
  name                      = "${var.topic}-${each.key}-dlq${local.suffix}"
  fifo_queue                = var.fifo
  max_message_size          = 1048576 # no less than the queue's: else a message could not become a letter
  message_retention_seconds = 1209600 # a letter's age counts from its publication
}

resource "aws_sqs_queue" "queue" {
  for_each                   = var.queues
  name                       = "${var.topic}-${each.key}${local.suffix}"
  fifo_queue                 = var.fifo
  max_message_size           = 1048576
  visibility_timeout_seconds = each.value.visibility_timeout # for Lambda: at least 6 times the function's
  message_retention_seconds  = each.value.retention
  receive_wait_time_seconds  = 20

  content_based_deduplication = var.fifo

  # It is there when the queue begins to exist: a policy that is set later takes SQS up
  # to a minute, in which SNS's messages would be lost.
  policy = data.aws_iam_policy_document.topic_sends[each.key].json

  # A net: fanout sends the dead letters itself, with their histories.
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead[each.key].arn
    maxReceiveCount     = 1000
  })
}

# Without it SNS's deliveries are refused, and the messages are lost.
data "aws_iam_policy_document" "topic_sends" {
  for_each = var.queues
  statement {
    sid       = "FanoutTopicSends"
    effect    = "Allow"
    actions   = ["sqs:SendMessage"]
    resources = [local.arns[each.key]]
    principals {
      type        = "Service"
      identifiers = ["sns.amazonaws.com"]
    }
    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_sns_topic.topic.arn]
    }
  }
}

resource "aws_sns_topic_subscription" "queue" {
  for_each             = var.queues
  topic_arn            = aws_sns_topic.topic.arn
  protocol             = "sqs"
  endpoint             = aws_sqs_queue.queue[each.key].arn
  raw_message_delivery = true
  filter_policy        = each.value.filter_policy
}

# What roles need: publish for those that publish, consume for each service's own queue,
# and operate for whoever looks at dead letters, redrives them or purges a queue.
resource "aws_iam_policy" "publish" {
  name = "${var.topic}-publish"
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      { Effect = "Allow", Action = ["sns:Publish", "sns:GetTopicAttributes"], Resource = aws_sns_topic.topic.arn },
      { Effect = "Allow", Action = ["sns:ListTopics"], Resource = "*" },
    ]
  })
}

resource "aws_iam_policy" "consume" {
  for_each = var.queues
  name     = "${var.topic}-${each.key}-consume"
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes", "sqs:GetQueueUrl"]
        Resource = aws_sqs_queue.queue[each.key].arn
      },
      {
        Effect   = "Allow"
        Action   = ["sqs:SendMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl"]
        Resource = aws_sqs_queue.dead[each.key].arn
      },
      { Effect = "Allow", Action = ["sns:GetTopicAttributes", "sns:ListSubscriptionsByTopic"], Resource = aws_sns_topic.topic.arn },
      { Effect = "Allow", Action = ["sns:GetSubscriptionAttributes", "sns:ListTopics"], Resource = "*" },
    ]
  })
}

# Together with consume.
resource "aws_iam_policy" "operate" {
  for_each = var.queues
  name     = "${var.topic}-${each.key}-operate"
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:PurgeQueue", "sqs:StartMessageMoveTask"]
        Resource = aws_sqs_queue.dead[each.key].arn
      },
      { Effect = "Allow", Action = ["sqs:SendMessage", "sqs:PurgeQueue"], Resource = aws_sqs_queue.queue[each.key].arn },
    ]
  })
}
