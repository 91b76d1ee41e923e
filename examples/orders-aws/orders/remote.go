package orders

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// A Remote is a Bank, a Carrier or a Mailer behind HTTP: it posts JSON with the
// header Idempotency-Key.
type Remote struct {
	URL    string
	Client *http.Client
}

// Charge implements Bank.
func (r *Remote) Charge(ctx context.Context, key string, cents int64) error {
	return r.post(ctx, key, map[string]any{"cents": cents})
}

// Ship implements Carrier.
func (r *Remote) Ship(ctx context.Context, key, address string) error {
	return r.post(ctx, key, map[string]any{"address": address})
}

// Send implements Mailer.
func (r *Remote) Send(ctx context.Context, key, to, text string) error {
	return r.post(ctx, key, map[string]any{"to": to, "text": text})
}

func (r *Remote) post(ctx context.Context, key string, what any) error {
	body, err := json.Marshal(what)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", key)
	response, err := r.Client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<16)) // so that the connection is used again
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s", r.URL, response.Status)
	}
	return nil
}
