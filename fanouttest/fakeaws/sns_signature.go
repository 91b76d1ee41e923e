package fakeaws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A signer signs what SNS sends, as SNS does: with an RSA key whose certificate
// is at SigningCertURL.
type signer struct {
	key     *rsa.PrivateKey
	file    string // the certificate's name in URLs
	root    *x509.Certificate
	rootKey *ecdsa.PrivateKey
}

// theSigner makes the signer when it is first needed, and is never changed then.
// All fakes of a process share it: making an RSA key takes long.
var theSigner = sync.OnceValue(newSigner)

// The certificates hold at any time that a test may have: bubbles of synctest
// begin in the year 2000.
var (
	certificatesFrom = time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC)
	certificatesTo   = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

func newSigner() *signer {
	s := &signer{key: sure(rsa.GenerateKey(rand.Reader, 2048)), rootKey: sure(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
	sum := sha256.Sum256(x509.MarshalPKCS1PublicKey(&s.key.PublicKey))
	s.file = "/SimpleNotificationService-" + hex.EncodeToString(sum[:16]) + ".pem"
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"fakeaws"}, CommonName: "fakeaws root"},
		NotBefore: certificatesFrom, NotAfter: certificatesTo, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	s.root = sure(x509.ParseCertificate(sure(x509.CreateCertificate(rand.Reader, template, template, &s.rootKey.PublicKey, s.rootKey))))
	return s
}

// sure returns v. What it is used for fails only without a source of random
// numbers, and then nothing is left to do.
func sure[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("fakeaws: signing: %v", err))
	}
	return v
}

// certificate returns the certificate for a region's SNS, in PEM.
func (s *signer) certificate(region string) []byte {
	host := snsHost(region)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: certificatesFrom, NotAfter: certificatesTo, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true}
	der := sure(x509.CreateCertificate(rand.Reader, template, s.root, &s.key.PublicKey, s.rootKey))
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// SigningRoots returns the root of the certificates at SigningCertURL, for programs that
// verify their chain. The certificates are issued for the host sns.<region>.amazonaws.com,
// and are valid from 1990 to 2100. All fakes of a process have the same root and key, which
// take about 0.1 s to make at the first use.
func (a *AWS) SigningRoots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(theSigner().root)
	return pool
}

// sign signs the envelope: version 1 is SHA1withRSA, 2 SHA256withRSA.
func (e *envelope) sign(version, base string) {
	s := theSigner()
	text := e.signedText()
	e.SignatureVersion, e.SigningCertURL = version, base+s.file
	var signature []byte
	if version == "2" {
		sum := sha256.Sum256([]byte(text))
		signature = sure(rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA256, sum[:]))
	} else {
		sum := sha1.Sum([]byte(text))
		signature = sure(rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA1, sum[:]))
	}
	e.Signature = encodeBase64(signature)
}

// signedText is what is signed: names and values, each on a line of its own.
func (e *envelope) signedText() string {
	fields := [][2]string{{"Message", e.Message}, {"MessageId", e.MessageID}}
	if e.Type == typeNotification {
		if e.Subject != "" {
			fields = append(fields, [2]string{"Subject", e.Subject})
		}
		fields = append(fields, [2]string{"Timestamp", e.Timestamp}, [2]string{"TopicArn", e.TopicArn})
	} else {
		fields = append(fields, [2]string{"SubscribeURL", e.SubscribeURL}, [2]string{"Timestamp", e.Timestamp}, [2]string{"Token", e.Token}, [2]string{"TopicArn", e.TopicArn})
	}
	fields = append(fields, [2]string{"Type", e.Type})
	var b strings.Builder
	for _, f := range fields {
		b.WriteString(f[0] + "\n" + f[1] + "\n")
	}
	return b.String()
}

// serveURL answers requests for the URLs that SNS hands out and that name no
// action: those of certificates. ok is false if the URL is none of them.
func (c *call) serveURL(r request) (out response, ok bool) {
	if r.method != http.MethodGet || !strings.HasPrefix(r.url.Path, "/SimpleNotificationService-") || r.url.Path != theSigner().file {
		return response{}, false
	}
	region := c.settings.region
	if rest, ok := strings.CutPrefix(r.host, "sns."); ok {
		region, _, _ = strings.Cut(rest, ".")
	}
	return response{status: http.StatusOK, header: c.header("application/x-pem-file"), body: c.certificate(region)}, true
}

// certificate returns the certificate for a region, the same each time.
func (c *cloud) certificate(region string) []byte {
	made := theSigner().certificate(region)
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.certificates[region]; old != nil {
		return old
	}
	if c.certificates == nil {
		c.certificates = map[string][]byte{}
	}
	c.certificates[region] = made
	return made
}
