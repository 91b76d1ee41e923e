// Receipts is the Lambda function that sends receipts for orders that were paid.
// The queue receipts is its event source, with ReportBatchItemFailures.
package main

import (
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/gofanout/fanout/examples/orders-aws/orders"
)

func main() {
	mailer := &orders.Remote{URL: os.Getenv("MAILER_URL"), Client: &http.Client{Timeout: 10 * time.Second}}
	lambda.Start((&orders.Receipts{Mailer: mailer}).Handle)
}
