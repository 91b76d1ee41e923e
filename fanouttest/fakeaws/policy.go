package fakeaws

import (
	"encoding/json"
	"slices"
	"strings"
)

// A policy is a resource's policy, as far as the fake understands it.
type policy struct {
	Version   string         `json:",omitempty"`
	ID        string         `json:"Id,omitempty"`
	Statement policyDocument `json:",omitempty"`
}

// policyDocument is one statement or several.
type policyDocument []statement

type statement struct {
	Sid          string                              `json:",omitempty"`
	Effect       string                              `json:",omitempty"`
	Principal    principals                          `json:",omitempty"`
	NotPrincipal json.RawMessage                     `json:",omitempty"`
	Action       oneOrMore                           `json:",omitempty"`
	NotAction    oneOrMore                           `json:",omitempty"`
	Resource     oneOrMore                           `json:",omitempty"`
	NotResource  oneOrMore                           `json:",omitempty"`
	Condition    map[string]map[string]conditionList `json:",omitempty"`
}

// oneOrMore is a string or a list of strings.
type oneOrMore []string

// UnmarshalJSON implements json.Unmarshaler.
func (l *oneOrMore) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '[' {
		return json.Unmarshal(data, (*[]string)(l))
	}
	*l = make(oneOrMore, 1)
	return json.Unmarshal(data, &(*l)[0])
}

// MarshalJSON implements json.Marshaler.
func (l oneOrMore) MarshalJSON() ([]byte, error) {
	if len(l) == 1 {
		return json.Marshal(l[0])
	}
	return json.Marshal([]string(l))
}

// conditionList is a value or a list of values, which may be booleans.
type conditionList []string

// UnmarshalJSON implements json.Unmarshaler.
func (l *conditionList) UnmarshalJSON(data []byte) error {
	var values []any
	if len(data) > 0 && data[0] == '[' {
		if err := json.Unmarshal(data, &values); err != nil {
			return err
		}
	} else {
		values = make([]any, 1)
		if err := json.Unmarshal(data, &values[0]); err != nil {
			return err
		}
	}
	for _, v := range values {
		switch v := v.(type) {
		case string:
			*l = append(*l, v)
		default:
			text, err := json.Marshal(v)
			if err != nil {
				return err
			}
			*l = append(*l, string(text))
		}
	}
	return nil
}

// principals are whom a statement is about: "*", or by kind (AWS, Service).
type principals map[string]oneOrMore

// UnmarshalJSON implements json.Unmarshaler.
func (p *principals) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		var s string
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
		*p = principals{"*": {s}}
		return nil
	}
	return json.Unmarshal(data, (*map[string]oneOrMore)(p))
}

// UnmarshalJSON implements json.Unmarshaler.
func (d *policyDocument) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '[' {
		return json.Unmarshal(data, (*[]statement)(d))
	}
	*d = make(policyDocument, 1)
	return json.Unmarshal(data, &(*d)[0])
}

// An access is what somebody wants to do.
type access struct {
	service  string // such as sns.amazonaws.com, if a service acts
	account  string // else the account that acts
	action   string // such as sqs:SendMessage
	resource string // ARN
	// sourceARN and sourceAccount are what aws:SourceArn and aws:SourceAccount
	// stand for when a service acts.
	sourceARN, sourceAccount string
}

// A verdict is what a policy says to an access.
type verdict int

const (
	silent verdict = iota // the policy does not mention it
	allowed
	denied
)

// A readPolicy is the last policy of a queue or topic that was read. It is
// guarded by the cloud's lock.
type readPolicy struct {
	document   string
	statements policyDocument
}

// judge returns what a policy, as JSON, says to an access. A denial goes before
// a permission. A policy that cannot be read says nothing.
func (p *readPolicy) judge(document string, a access) verdict {
	if document != p.document {
		var read policy
		if err := json.Unmarshal([]byte(document), &read); err != nil {
			read.Statement = nil
		}
		p.document, p.statements = document, read.Statement
	}
	v := silent
	for k := range p.statements {
		s := &p.statements[k]
		if !s.covers(a) {
			continue
		}
		if s.Effect == "Deny" {
			return denied
		}
		v = allowed
	}
	return v
}

// covers says whether a statement is about an access.
func (s *statement) covers(a access) bool {
	if s.NotPrincipal != nil || !s.Principal.cover(a) {
		return false
	}
	if len(s.NotAction) > 0 {
		if anyMatches(s.NotAction, a.action, true) {
			return false
		}
	} else if !anyMatches(s.Action, a.action, true) {
		return false
	}
	if len(s.Resource) > 0 && !anyMatches(s.Resource, a.resource, false) {
		return false
	}
	if len(s.NotResource) > 0 && anyMatches(s.NotResource, a.resource, false) {
		return false
	}
	for operator, keys := range s.Condition {
		for key, values := range keys {
			if !holds(operator, key, values, a) {
				return false
			}
		}
	}
	return true
}

func (p principals) cover(a access) bool {
	for kind, names := range p {
		for _, name := range names {
			switch {
			case name == "*" && kind != "Service":
				return true
			case kind == "Service" && a.service != "" && name == a.service:
				return true
			case kind == "AWS" && a.service == "" && (name == a.account || strings.HasPrefix(name, "arn:aws:iam::"+a.account+":")):
				return true
			}
		}
	}
	return false
}

// holds evaluates a condition. Operators and keys that the fake does not know
// never hold.
func holds(operator, key string, values []string, a access) bool {
	known := map[string]string{
		"aws:sourcearn":        a.sourceARN,
		"aws:sourceaccount":    a.sourceAccount,
		"aws:sourceowner":      a.sourceAccount,
		"aws:principalaccount": a.account,
		"aws:securetransport":  "true",
	}
	value, ok := known[strings.ToLower(key)]
	ifExists := strings.HasSuffix(operator, "IfExists")
	if !ok || value == "" {
		return ifExists || strings.Contains(operator, "Not") && ok
	}
	operator = strings.TrimSuffix(operator, "IfExists")
	matches := func(match func(pattern string) bool) bool { return slices.ContainsFunc(values, match) }
	same := func(p string) bool { return p == value }
	fold := func(p string) bool { return strings.EqualFold(p, value) }
	like := func(p string) bool { return matchesPattern(p, value) }
	switch operator {
	case "StringEquals":
		return matches(same)
	case "StringNotEquals":
		return !matches(same)
	case "StringEqualsIgnoreCase", "Bool":
		return matches(fold)
	case "ArnEquals", "ArnLike", "StringLike":
		return matches(like)
	case "ArnNotEquals", "ArnNotLike", "StringNotLike":
		return !matches(like)
	}
	return false
}

func anyMatches(patterns []string, s string, fold bool) bool {
	if fold {
		s = strings.ToLower(s)
	}
	return slices.ContainsFunc(patterns, func(p string) bool {
		if fold {
			p = strings.ToLower(p)
		}
		return matchesPattern(p, s)
	})
}

// matchesPattern compares with a pattern in which * stands for any text and ?
// for any byte.
func matchesPattern(pattern, s string) bool {
	star, from := -1, 0
	p, k := 0, 0
	for k < len(s) {
		switch {
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[k]) && pattern[p] != '*':
			p, k = p+1, k+1
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, k
			p++
		case star >= 0:
			from++
			p, k = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
