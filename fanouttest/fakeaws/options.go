package fakeaws

import (
	"fmt"
	"regexp"
)

// settings are what options write to.
type settings struct {
	region, account string
}

// An Option configures a fake.
type Option func(*settings) error

var (
	accountPattern = regexp.MustCompile(`^[0-9]{12}$`)
	regionPattern  = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-[0-9]$`)
)

// WithRegion sets the region of the view that [New] returns, and of requests
// that name none. The default is [DefaultRegion].
func WithRegion(region string) Option {
	return func(s *settings) error {
		if !regionPattern.MatchString(region) {
			return fmt.Errorf("fakeaws: WithRegion(%q): want a region such as us-east-1", region)
		}
		s.region = region
		return nil
	}
}

// WithAccount sets the account of the view that [New] returns, and of requests
// that name none. The default is [DefaultAccount].
func WithAccount(id string) Option {
	return func(s *settings) error {
		if !accountPattern.MatchString(id) {
			return fmt.Errorf("fakeaws: WithAccount(%q): want twelve digits", id)
		}
		s.account = id
		return nil
	}
}
