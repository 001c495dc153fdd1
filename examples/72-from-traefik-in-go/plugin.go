package main

import (
	"errors"
	"slices"
	"strings"

	"witgate"
	"witgate/filter"
)

type Config struct {
	Languages []string `json:"languages"`
}

type Language struct{ languages []string }

func New(config Config) (*Language, error) {
	if len(config.Languages) == 0 {
		return nil, errors.New("config.languages: name at least one")
	}
	return &Language{config.Languages}, nil
}

func (l *Language) OnRequest(request *witgate.Request) witgate.Decision {
	path := request.Path()
	first, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if slices.Contains(l.languages, first) {
		request.Set("accept-language", first)
		request.SetPath("/" + rest)
		return witgate.Continue
	}
	if path == "/" {
		return witgate.Redirect(302, "/"+l.languages[0]+"/")
	}
	return witgate.Continue
}

func init() { filter.Export(New) }

func main() {}
