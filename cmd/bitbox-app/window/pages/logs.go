package pages

import (
	"fmt"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// logsView are the newest lines of a service's log.
type logsView struct {
	Title, Empty string
	Problem      *words.Text
	Lines        []logLine
}

type logLine struct{ Key, When, Text, Class string }

// whichView is the form with which a person chooses a log.
type whichView struct {
	Path     string
	Names    []choice
	Contains string
}

// The priorities of syslog(3) below this one are worse than a warning.
const warningPriority = 4

// logs are the lines that the page was asked for. Which of them contain the text is decided here,
// so that the next question costs the Base nothing.
func (v *view) logs() logsView {
	service, contains := v.query.Get("service"), strings.ToLower(v.query.Get("contains"))
	if service == "" {
		return logsView{}
	}
	answer := v.answered(owner.Logs, service)
	shown := logsView{Title: v.say("services.log.of", service), Problem: v.problem(answer.Err), Empty: v.say("services.logs.wait")}
	if !answer.At.IsZero() {
		shown.Empty = v.say("services.logs.none")
	}
	seen := map[string]int{}
	for _, e := range answer.Lines {
		if !strings.Contains(strings.ToLower(e.GetText()), contains) {
			continue
		}
		at := e.GetTime().AsTime()
		line := logLine{When: at.Local().Format(time.DateTime), Text: e.GetText()}
		if e.GetPriority() < warningPriority {
			line.Class = "bad"
		}
		key := fmt.Sprint(at.UnixMicro())
		line.Key = fmt.Sprintf("%s %d", key, seen[key])
		seen[key]++
		shown.Lines = append(shown.Lines, line)
	}
	return shown
}

func (v *view) whichLogs() whichView {
	w := whichView{Path: addressOf(v.base, "services"), Contains: v.query.Get("contains")}
	for _, s := range v.base.Look.Services {
		w.Names = append(w.Names, choice{s.GetName(), s.GetName(), s.GetName() == v.query.Get("service")})
	}
	return w
}
