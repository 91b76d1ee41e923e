package webtest

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/examples/checkout/program"
)

// examples/checkout -http is a shop under load to play with: what fails is seen, letters come up, and
// what one does with them has an effect.
func TestTheCheckoutExample(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := program.Run(ctx, program.Where{}, []string{"-http", "127.0.0.1:0", "-workers", "7"}, in)
		in.Close()
		ended <- err
	}()
	address := make(chan string, 1)
	go func() {
		said := bufio.NewScanner(out)
		for said.Scan() {
			if _, url, found := strings.Cut(said.Text(), "the queues are at "); found {
				address <- strings.TrimSuffix(strings.TrimSpace(url), "/")
			}
		}
	}()
	defer func() {
		interrupt()
		require.NoError(t, <-ended, "the books balance")
	}()
	b := newTab(t, <-address)
	b.open("/")
	b.is(`document.querySelector("[data-state=live]")`)
	b.is(`document.querySelectorAll(".links .slow, .links .fast, .links .waits").length === 2`)
	b.is(`document.querySelector(".rates").innerText.includes("/s failed")`)
	b.is(`document.querySelector(".row .dead b")`)
	if *screenshots != "" { // as it is for most of the time
		timer := time.NewTimer(20 * time.Second)
		defer timer.Stop()
		<-timer.C
		b.is(`document.querySelector(".findings .critical")`)
	}
	b.fits()
	b.accessible()
	b.picture("checkout")
	b.open("/queue?topic=payments&queue=inventory")
	b.is(`document.querySelectorAll(".chart path").length > 3`)
	b.fits()
	b.accessible()
	b.picture("checkout-queue")
	b.press("Redrive dead letters")
	require.Contains(t, b.text(), "What you redrive may die again.")
	b.clean()
}
