package witgate

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// DecodeConfig reads the `config:` of a plugin into a struct with json tags. Unknown keys are errors,
// and every error names its key. An absent configuration reads like an empty map. Export calls it.
func DecodeConfig[C any](text string) (C, error) {
	var config C
	if text == "null" {
		text = "{}"
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&config)
	var mismatch *json.UnmarshalTypeError
	switch {
	case err == nil:
		return config, nil
	case errors.As(err, &mismatch):
		key := "config"
		if mismatch.Field != "" {
			key += "." + mismatch.Field
		}
		return config, fmt.Errorf("%s: %s was expected, not %s", key, kind(mismatch.Type), mismatch.Value)
	}
	if name, isUnknown := strings.CutPrefix(err.Error(), "json: unknown field "); isUnknown {
		return config, fmt.Errorf("config.%s: unknown key", strings.Trim(name, `"`))
	}
	return config, fmt.Errorf("config: %w", err)
}

func kind(wanted reflect.Type) string {
	switch wanted.Kind() {
	case reflect.String:
		return "a text"
	case reflect.Bool:
		return "true or false"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number, zero or more,"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice, reflect.Array:
		return "a list"
	default:
		return "a map"
	}
}
