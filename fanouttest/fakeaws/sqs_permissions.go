package fakeaws

import (
	"encoding/json"
	"slices"
)

// addPermission implements AddPermission: it adds a statement to the queue's
// policy.
func (c *call) addPermission(in *addPermissionInput) (*emptyOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, err := c.queueOfLocked(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	label := deref(in.Label)
	switch {
	case label == "":
		return nil, missing("Label")
	case !entryIDPattern.MatchString(label):
		return nil, invalidValue(label, "Label", "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")
	case len(in.AWSAccountIds) == 0:
		return nil, missing("AWSAccountIds")
	case len(in.Actions) == 0:
		return nil, missing("Actions")
	case len(in.Actions) > 7:
		return nil, errOverLimit.with("%d Actions were found, maximum allowed is 7.", len(in.Actions))
	}
	s := statement{Sid: label, Effect: "Allow", Principal: principals{}, Resource: oneOrMore{q.arn}}
	for _, id := range in.AWSAccountIds {
		if !accountPattern.MatchString(id) {
			return nil, invalidValue("["+id+"]", "PrincipalId", "Unable to verify.")
		}
		s.Principal["AWS"] = append(s.Principal["AWS"], "arn:aws:iam::"+id+":root")
	}
	for _, action := range in.Actions {
		if _, ok := sqsOperations[action]; action != "*" && (!ok || slices.Contains(ownOperations, action)) {
			return nil, invalidValue("SQS:"+action, "ActionName", "Only the queue owner is allowed to invoke this action, or there is no such action.")
		}
		s.Action = append(s.Action, "SQS:"+action)
	}
	p, err := q.policyLocked()
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(p.Statement, func(s statement) bool { return s.Sid == label }) {
		return nil, invalidValue(label, "Label", "Already exists.")
	}
	p.Statement = append(p.Statement, s)
	return &emptyOutput{}, c.setPolicyLocked(q, p)
}

// removePermission implements RemovePermission.
func (c *call) removePermission(in *removePermissionInput) (*emptyOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, err := c.queueOfLocked(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	label := deref(in.Label)
	if label == "" {
		return nil, missing("Label")
	}
	p, err := q.policyLocked()
	if err != nil {
		return nil, err
	}
	k := slices.IndexFunc(p.Statement, func(s statement) bool { return s.Sid == label })
	if k < 0 {
		return nil, invalidValue(label, "Label", "can't find label.")
	}
	p.Statement = slices.Delete(p.Statement, k, k+1)
	return &emptyOutput{}, c.setPolicyLocked(q, p)
}

// policyLocked returns the queue's policy, a new one if it has none.
func (q *queue) policyLocked() (p policy, err error) {
	document := q.attributes.given["Policy"]
	if document == "" {
		return policy{Version: "2008-10-17", ID: q.arn + "/SQSDefaultPolicy"}, nil
	}
	if err := json.Unmarshal([]byte(document), &p); err != nil {
		return p, errInvalidAttributeValue.with("The queue's policy cannot be read: %v.", err)
	}
	return p, nil
}

func (c *call) setPolicyLocked(q *queue, p policy) error {
	if len(p.Statement) == 0 {
		delete(q.attributes.given, "Policy")
		return nil
	}
	document, err := encodeJSON(p)
	if err != nil {
		return errInternal.with("%v", err)
	}
	q.attributes.given["Policy"] = string(document)
	q.modified = c.clock()
	return nil
}
