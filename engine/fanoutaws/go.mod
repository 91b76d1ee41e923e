module github.com/gofanout/fanout/engine/fanoutaws

go 1.25.0

require (
	github.com/aws/aws-sdk-go-v2 v1.47.7
	github.com/aws/aws-sdk-go-v2/service/sns v1.47.9
	github.com/aws/aws-sdk-go-v2/service/sqs v1.52.10
	github.com/aws/smithy-go v1.28.8
	github.com/gofanout/fanout v0.1.0
	github.com/stretchr/testify v1.12.1
)

require github.com/aws/aws-lambda-go v1.54.0 // indirect

require (
	github.com/aws/aws-sdk-go-v2/internal/configsources v1.5.10 // indirect
	github.com/aws/aws-sdk-go-v2/internal/endpoints/v2 v2.8.10 // indirect
	github.com/gofanout/fanout/fanouttest/fakeaws v0.1.0
	github.com/google/uuid v1.6.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sync v0.22.0
)

replace github.com/gofanout/fanout => ../..

replace github.com/gofanout/fanout/fanouttest/fakeaws => ../../fanouttest/fakeaws
