package fanoutweb

import (
	"embed"
	"html/template"
	"strings"
	"time"
)

//go:embed pages/*.html
var pageFiles embed.FS

//go:embed assets
var assetFiles embed.FS

// parsePages parses the templates. html/template escapes by context what they show.
func parsePages() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"number": func(n any) string { return ofAny(n, number, number) }, "full": func(n any) string { return ofAny(n, grouped, grouped) },
		"rate": rate, "seconds": seconds, "duration": duration, "plural": func(n int, thing string) string { return plural(n, thing) },
		"clock": clock, "clockText": clockText, "link": link, "plain": plain,
		"causeName": func(c string) string { return strings.ReplaceAll(c, " ", "-") }, "isAre": func(n int, one, several string) string { return isAre(n, one, several) },
		"ago": func(t time.Time) string { return duration(max(time.Since(t), 0).Truncate(time.Second)) },
		"add": func(a, b int) int { return a + b },
	}).ParseFS(pageFiles, "pages/*.html"))
}

// ofAny calls the function for the type of a number.
func ofAny(n any, i func(int) string, u func(uint64) string) string {
	switch n := n.(type) {
	case uint64:
		return u(n)
	case bound:
		return i(int(n))
	}
	k, _ := n.(int)
	return i(k)
}

func asset(name, kind string) func(*visit) error {
	text, err := assetFiles.ReadFile("assets/" + name)
	return func(v *visit) error {
		if err != nil {
			return err
		}
		v.w.Header().Set("Content-Type", kind)
		_, _ = v.w.Write(text)
		return nil
	}
}
