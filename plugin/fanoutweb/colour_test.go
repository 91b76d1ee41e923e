package fanoutweb

import (
	"math"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// How much of red, green and blue is seen as how much of them by who has no receptors for red, for
// green, or for blue (Machado, Oliveira and Fernandes 2009), and by most people.
var eyes = map[string][3][3]float64{
	"all":      {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}},
	"no red":   {{0.152286, 1.052583, -0.204868}, {0.114503, 0.786281, 0.099216}, {-0.003882, -0.048116, 1.051998}},
	"no green": {{0.367322, 0.860646, -0.227968}, {0.280085, 0.672501, 0.047413}, {-0.011820, 0.042940, 0.968881}},
	"no blue":  {{1.255528, -0.076749, -0.178779}, {-0.078411, 0.930809, 0.147602}, {0.004733, 0.691367, 0.303900}},
}

// seen is a colour such as #1f66b8 in CIELAB, as eyes see it.
func seen(t *testing.T, hex string, eye [3][3]float64) (lab [3]float64) {
	n, err := strconv.ParseUint(hex[1:], 16, 32)
	require.NoError(t, err)
	var linear, rgb [3]float64
	for k := range 3 {
		c := float64(n>>(16-8*k)&0xff) / 255
		if linear[k] = c / 12.92; c > 0.04045 {
			linear[k] = math.Pow((c+0.055)/1.055, 2.4)
		}
	}
	for k := range 3 {
		rgb[k] = min(max(eye[k][0]*linear[0]+eye[k][1]*linear[1]+eye[k][2]*linear[2], 0), 1)
	}
	f := func(r, g, b, white float64) float64 { return math.Cbrt((r*rgb[0]+g*rgb[1]+b*rgb[2])/white + 1e-6) }
	x, y, z := f(.4124, .3576, .1805, .95047), f(.2126, .7152, .0722, 1), f(.0193, .1192, .9505, 1.08883)
	return [3]float64{116*y - 16, 500 * (x - y), 200 * (y - z)}
}

// Readers who see no red, green or blue tell the states of a queue apart in its bar, by light and in
// the dark.
func TestEveryoneTellsTheColoursOfStatesApart(t *testing.T) {
	style, err := assetFiles.ReadFile("assets/style.css")
	require.NoError(t, err)
	states := []string{"ready", "flight", "delayed", "retrying", "parked", "blocked", "released", "track"}
	for theme, scheme := range []string{"light", "dark"} {
		colours := map[string]string{}
		for _, state := range states {
			found := regexp.MustCompile(`--`+state+`: (#[0-9a-f]{6});`).FindAllSubmatch(style, -1)
			require.Len(t, found, 2, state)
			colours[state] = string(found[theme][1])
		}
		for who, eye := range eyes {
			for k, a := range states {
				for _, b := range states[:k] {
					p, q := seen(t, colours[a], eye), seen(t, colours[b], eye)
					distance := math.Hypot(math.Hypot(p[0]-q[0], p[1]-q[1]), p[2]-q[2])
					require.Greater(t, distance, 20.0, "%s: %s %s and %s %s, seen by who has %s", scheme, a, colours[a], b, colours[b], who)
				}
			}
		}
	}
}
