package fanoutwatermill

import (
	"bytes"
	"fmt"
)

// raw hands payloads to an engine as they are.
type raw struct{}

func (raw) Encode(body any) ([]byte, error) {
	b, is := body.([]byte)
	if !is {
		return nil, fmt.Errorf("fanoutwatermill: payload is %T, not bytes", body)
	}
	return b, nil
}

func (raw) Decode(data []byte, body any) error {
	b, is := body.(*[]byte)
	if !is {
		return fmt.Errorf("fanoutwatermill: payload is %T, not bytes", body)
	}
	*b = bytes.Clone(data)
	return nil
}

func (raw) ContentType() string { return "application/octet-stream" }
