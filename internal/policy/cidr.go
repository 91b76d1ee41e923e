package policy

import (
	"net/netip"
	"strconv"
	"strings"
)

// cidr compiles an address and the number of its bits that count. Its own bits
// beyond those are dropped, and all of them may count (/32, /128).
func cidr(value node, at *path) (test, *Error) {
	if value.kind != isString {
		// The rule engine says prefix here, for which nobody would look.
		return test{}, at.errorf("cidr match pattern must be a string")
	}
	address, mask, ok := strings.Cut(value.text, "/")
	if !ok || strings.Contains(mask, "/") {
		return test{}, at.errorf("Malformed CIDR, one '/' required")
	}
	bits, err := strconv.Atoi(mask)
	if err != nil {
		return test{}, at.errorf("Malformed CIDR, mask bits must be an integer")
	}
	ip, err := netip.ParseAddr(address)
	// An IPv4 address in IPv6 form could have its bits counted from either
	// start, and a zone belongs to one host: neither is a block.
	if err != nil || ip.Is4In6() || ip.Zone() != "" {
		return test{}, at.errorf("Nonstandard IP address: %s", address)
	}
	block, err := ip.Prefix(bits)
	if err != nil {
		return test{}, at.errorf("Malformed CIDR, mask bits must be from 0 to %d", ip.BitLen())
	}
	return test{op: opCIDR, block: block}, nil
}

// inBlock reports if text is an address in block. An address with a zone is in
// none. Text that is no address costs an allocation, for the error of ParseAddr.
func inBlock(block netip.Prefix, text string) bool {
	ip, err := netip.ParseAddr(text)
	return err == nil && block.Contains(ip.Unmap())
}
