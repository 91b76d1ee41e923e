output "topic_arn" {
  value = aws_sns_topic.topic.arn
}

output "queue_urls" {
  value = { for name, q in aws_sqs_queue.queue : name => q.url }
}

output "dead_letter_queue_urls" {
  value = { for name, q in aws_sqs_queue.dead : name => q.url }
}

output "publish_policy_arn" {
  value = aws_iam_policy.publish.arn
}

output "consume_policy_arns" {
  value = { for name, p in aws_iam_policy.consume : name => p.arn }
}

output "operate_policy_arns" {
  value = { for name, p in aws_iam_policy.operate : name => p.arn }
}
