module github.com/gofanout/fanout/plugin/fanoutwatermill/internal/natstest

go 1.26.0

require (
	github.com/ThreeDotsLabs/watermill v1.5.1
	github.com/gofanout/fanout v0.1.0
	github.com/gofanout/fanout/engine/fanoutnats v0.1.0
	github.com/gofanout/fanout/plugin/fanoutwatermill v0.1.0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/antithesishq/antithesis-sdk-go v0.8.0-default-no-op // indirect
	github.com/gofrs/flock v0.13.0 // indirect
	github.com/google/go-tpm v0.9.8 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/lithammer/shortuuid/v3 v3.0.7 // indirect
	github.com/minio/highwayhash v1.0.4 // indirect
	github.com/nats-io/jwt/v2 v2.8.2 // indirect
	github.com/nats-io/nats-server/v2 v2.15.2 // indirect
	github.com/nats-io/nats.go v1.55.0 // indirect
	github.com/nats-io/nkeys v0.4.16 // indirect
	github.com/nats-io/nuid v1.0.1 // indirect
	github.com/oklog/ulid v1.3.1 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sync v0.22.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)

replace (
	github.com/gofanout/fanout => ../../../..
	github.com/gofanout/fanout/engine/fanoutnats => ../../../../engine/fanoutnats
	github.com/gofanout/fanout/plugin/fanoutwatermill => ../..
)
