package board

import (
	"fmt"
	"os"

	"github.com/vango-go/vango/pkg/vango"
)

// seen marks a session as known to this process. It is plain session data: the framework never stores it.
const seen = "board.seen"

// Arrival tells how a session came to this process. Its zero value is a page without a session yet.
type Arrival struct {
	Live    bool
	Resumed int // how often it came from the session store; 0: it began in this process
}

// arrived is the arrival of a session that has been somewhere before, here or elsewhere, for the first rendering. For
// a new one it is the zero value: its first rendering must be the page that the browser has already.
func arrived(ctx vango.Ctx) Arrival {
	berths := Berths.Get(ctx)
	if berths == 0 {
		return Arrival{}
	}
	if ctx.Session().Get(seen) == nil {
		berths++
	}
	return Arrival{Live: true, Resumed: berths - 1}
}

// arrive finds out how the session came here, once per process and session. It must run in a handler or on mount.
func arrive(ctx vango.Ctx) Arrival {
	session := ctx.Session()
	if session == nil {
		return Arrival{}
	}
	berths := Berths.Get(ctx)
	if session.Get(seen) == nil {
		session.Set(seen, true)
		berths++
		_ = Berths.Set(ctx, berths)
	}
	return Arrival{Live: true, Resumed: berths - 1}
}

// Story is the arrival in a few words.
func (a Arrival) Story() string {
	switch {
	case !a.Live:
		return "connecting"
	case a.Resumed == 0:
		return "fresh"
	default:
		return fmt.Sprintf("resumed from the session store (%d)", a.Resumed)
	}
}

// Kind is the arrival in one word, for the style sheet.
func (a Arrival) Kind() string {
	switch {
	case !a.Live:
		return "pending"
	case a.Resumed == 0:
		return "fresh"
	default:
		return "resumed"
	}
}

// Meaning is what the arrival means for the person in front of the page.
func (a Arrival) Meaning() string {
	switch {
	case !a.Live:
		return "The page is here, its session is not yet."
	case a.Resumed == 0:
		return "It began in allocation " + Allocation() + ". Nothing was carried over from an earlier one."
	default:
		return "Allocation " + Allocation() + " took it over from another. What is kept came along; scratch did not."
	}
}

// Allocation is the number of the running copy of the app, as the platform tells it; "local" without a platform.
func Allocation() string {
	if number := os.Getenv("MOORAGE_ALLOCATION_NUMBER"); number != "" {
		return number
	}
	return "local"
}
