package fakeaws

import "strings"

// An arn is an Amazon Resource Name in its parts.
type arn struct {
	service string
	place
	resource string
}

func (a arn) String() string {
	return "arn:aws:" + a.service + ":" + a.region + ":" + a.account + ":" + a.resource
}

// parseARN takes an ARN apart. Resources of SNS subscriptions contain a colon.
func parseARN(s string) (a arn, ok bool) {
	parts := strings.SplitN(s, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || !strings.HasPrefix(parts[1], "aws") || parts[2] == "" || parts[5] == "" {
		return arn{}, false
	}
	return arn{service: parts[2], place: place{account: parts[4], region: parts[3]}, resource: parts[5]}, true
}
