# What fanoutaws makes by itself, for those who want it made by Terraform: give
# the engine fanoutaws.WithExisting(). The names are its defaults.

locals {
  suffix = var.fifo ? ".fifo" : ""
}

resource "aws_sns_topic" "topic" {
  name       = "${var.topic}${local.suffix}"
  fifo_topic = var.fifo
}

resource "aws_sqs_queue" "dead" {
  for_each                  = var.queues
  name                      = "${var.topic}-${each.key}-dlq${local.suffix}"
  fifo_queue                = var.fifo
  message_retention_seconds = 1209600 # a letter's age counts from its publication
}

resource "aws_sqs_queue" "queue" {
  for_each                   = var.queues
  name                       = "${var.topic}-${each.key}${local.suffix}"
  fifo_queue                 = var.fifo
  visibility_timeout_seconds = each.value.visibility_timeout # for Lambda: at least 6 times the function's
  message_retention_seconds  = each.value.retention
  receive_wait_time_seconds  = 20

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
    resources = [aws_sqs_queue.queue[each.key].arn]
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

resource "aws_sqs_queue_policy" "topic_sends" {
  for_each  = var.queues
  queue_url = aws_sqs_queue.queue[each.key].id
  policy    = data.aws_iam_policy_document.topic_sends[each.key].json
}

resource "aws_sns_topic_subscription" "queue" {
  for_each             = var.queues
  topic_arn            = aws_sns_topic.topic.arn
  protocol             = "sqs"
  endpoint             = aws_sqs_queue.queue[each.key].arn
  raw_message_delivery = true
  filter_policy        = each.value.filter_policy

  depends_on = [aws_sqs_queue_policy.topic_sends]
}

# What the containers' roles need: attach publish to those that publish, and
# consume to each service's own.
resource "aws_iam_policy" "publish" {
  name = "${var.topic}-publish"
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      { Effect = "Allow", Action = ["sns:Publish"], Resource = aws_sns_topic.topic.arn },
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
        Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage"]
        Resource = [aws_sqs_queue.queue[each.key].arn, aws_sqs_queue.dead[each.key].arn]
      },
      { Effect = "Allow", Action = ["sns:ListSubscriptionsByTopic"], Resource = aws_sns_topic.topic.arn },
      { Effect = "Allow", Action = ["sns:GetSubscriptionAttributes", "sns:ListTopics"], Resource = "*" },
    ]
  })
}
