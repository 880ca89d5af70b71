// Package tap writes the Test Anything Protocol: what the validation programs need of the package of
// this name, which Debian does not have.
package tap

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

type T struct{ next int }

// Todo is a T whose failures are expected.
type Todo struct{ t *T }

func New() *T { return &T{next: 1} }

func (t *T) line(format string, a ...interface{}) { fmt.Fprintf(os.Stdout, format+"\n", a...) }

func (t *T) result(passed bool, words string) {
	word := "ok"
	if !passed {
		word = "not ok"
	}
	t.line("%s %d %s", word, t.next, words)
	t.next++
}

func (t *T) Header(count int) {
	t.line("TAP version 13")
	if count > 0 {
		t.line("1..%d", count)
	}
}

func (t *T) Ok(passed bool, words string) { t.result(passed, "- "+words) }
func (t *T) Pass(words string)            { t.Ok(true, words) }
func (t *T) Fail(words string)            { t.Ok(false, words) }

func (t *T) Skip(count int, words string) {
	for i := 0; i < count; i++ {
		t.result(true, "# SKIP "+words)
	}
}

func (t *T) AutoPlan()               { t.line("1..%d", t.next-1) }
func (t *T) Diagnostic(words string) { t.line("# %s", strings.ReplaceAll(words, "\n", "\n# ")) }

func (t *T) Diagnosticf(format string, a ...interface{}) { t.Diagnostic(fmt.Sprintf(format, a...)) }

func (t *T) YAML(value interface{}) error {
	text, err := json.Marshal(value)
	if err == nil {
		t.line("  ---\n  %s\n  ...", text)
	}
	return err
}

func (t *T) Todo() *Todo { return &Todo{t} }

func (d *Todo) Ok(passed bool, words string) { d.t.result(passed, "# TODO "+words) }
func (d *Todo) Pass(words string)            { d.Ok(true, words) }
func (d *Todo) Fail(words string)            { d.Ok(false, words) }
