package witgate

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// DecodeConfig reads the `config:` of a plugin into a struct with json tags. Unknown keys are errors,
// and every error names its key, as in `config.tenants.blue: a text was expected, not 5`. An absent
// configuration reads like an empty map. Export calls it.
func DecodeConfig[C any](text string) (C, error) {
	var config C
	if text == "null" {
		text = "{}"
	}
	var found any
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&found); err != nil {
		return config, fmt.Errorf("config: %w", err)
	}
	if err := check(found, reflect.TypeFor[C](), "config"); err != nil {
		return config, err
	}
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return config, fmt.Errorf("config: %w", err)
	}
	return config, nil
}

// check finds the first place at which a value is not of its type; encoding/json knows only the type.
func check(found any, wanted reflect.Type, path string) error {
	if found == nil || reflect.PointerTo(wanted).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return nil
	}
	isFine, expected := true, ""
	switch wanted.Kind() {
	case reflect.Pointer:
		return check(found, wanted.Elem(), path)
	case reflect.Interface:
		return nil
	case reflect.Struct:
		return checkStruct(found, wanted, path)
	case reflect.Map:
		return checkMap(found, wanted, path)
	case reflect.Slice, reflect.Array:
		return checkList(found, wanted, path)
	case reflect.String:
		_, isFine = found.(string)
		expected = "a text"
	case reflect.Bool:
		_, isFine = found.(bool)
		expected = "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		_, err := strconv.ParseInt(number(found), 10, wanted.Bits())
		isFine, expected = err == nil, "a whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		_, err := strconv.ParseUint(number(found), 10, wanted.Bits())
		isFine, expected = err == nil, "a whole number, zero or more,"
	case reflect.Float32, reflect.Float64:
		isFine, expected = number(found) != "", "a number"
	}
	if !isFine {
		return mismatch(found, expected, path)
	}
	return nil
}

func checkStruct(found any, wanted reflect.Type, path string) error {
	members, isMap := found.(map[string]any)
	if !isMap {
		return mismatch(found, "a map", path)
	}
	types := map[string]reflect.Type{}
	for _, field := range reflect.VisibleFields(wanted) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" {
			name = field.Name
		}
		if field.IsExported() && !field.Anonymous && name != "-" {
			types[name] = field.Type
		}
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		inner, isKnown := types[name]
		if !isKnown {
			known := strings.Join(slices.Sorted(maps.Keys(types)), ", ")
			return fmt.Errorf("%s.%s: unknown key, expected one of %s", path, name, known)
		}
		if err := check(members[name], inner, path+"."+name); err != nil {
			return err
		}
	}
	return nil
}

func checkMap(found any, wanted reflect.Type, path string) error {
	members, isMap := found.(map[string]any)
	if !isMap {
		return mismatch(found, "a map", path)
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if err := check(members[name], wanted.Elem(), path+"."+name); err != nil {
			return err
		}
	}
	return nil
}

func checkList(found any, wanted reflect.Type, path string) error {
	items, isList := found.([]any)
	if !isList {
		return mismatch(found, "a list", path)
	}
	for i, item := range items {
		if err := check(item, wanted.Elem(), fmt.Sprintf("%s[%d]", path, i)); err != nil {
			return err
		}
	}
	return nil
}

// number is the text of a number, and empty for all else.
func number(found any) string {
	number, _ := found.(json.Number)
	return number.String()
}

func mismatch(found any, expected, path string) error {
	shown, err := json.Marshal(found)
	if err != nil {
		return err
	}
	if len(shown) > 60 {
		shown = append(shown[:60], "..."...)
	}
	return fmt.Errorf("%s: %s was expected, not %s", path, expected, shown)
}
