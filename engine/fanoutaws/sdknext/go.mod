module github.com/gofanout/fanout/engine/fanoutaws/sdknext

go 1.25.0

require (
	github.com/aws/aws-sdk-go-v2 v1.48.0
	github.com/aws/aws-sdk-go-v2/service/sns v1.48.0
	github.com/aws/aws-sdk-go-v2/service/sqs v1.53.0
	github.com/gofanout/fanout/engine/fanoutaws v0.1.0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/gofanout/fanout v0.1.0
	github.com/gofanout/fanout/fanouttest/fakeaws v0.1.0
)

require (
	github.com/aws/aws-lambda-go v1.54.0 // indirect
	github.com/aws/aws-sdk-go-v2/internal/configsources v1.5.12 // indirect
	github.com/aws/aws-sdk-go-v2/internal/endpoints/v2 v2.8.12 // indirect
	github.com/aws/smithy-go v1.28.9 // indirect
	github.com/google/uuid v1.6.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sync v0.22.0 // indirect
)

replace github.com/gofanout/fanout/engine/fanoutaws => ../

replace github.com/gofanout/fanout/fanouttest/fakeaws => ../../../fanouttest/fakeaws

replace github.com/gofanout/fanout => ../../../
