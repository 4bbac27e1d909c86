// Package board is the app's one live component, and what it keeps.
//
// This file holds everything that differs between the versions (see variants/): which state there is, and of which type.
package board

import (
	"strconv"

	"github.com/vango-go/vango"
	"github.com/vango-go/vango/setup"
)

// Version names this build on the page.
const Version = "v3"

// Berths counts the processes that have held this session, the present one included. It travels with the session:
// a process that finds it above zero in a session that it has not seen before got that session from the store.
var Berths = vango.NewSessionKey[int]("berths", vango.Default(0))

// Board shows the notes of all visitors beside what the visitor's own session keeps, and does not keep.
func Board(p vango.NoProps) vango.Component {
	return vango.Setup(p, func(s vango.SetupCtx[vango.NoProps]) vango.RenderFn {
		ctx := s.Ctx()
		draft := setup.SharedSignal(&s, "")
		color := setup.SharedSignal(&s, "yellow")
		count := setup.SharedSignal(&s, int64(0)) // an int before: whoever stored one cannot be resumed
		message := setup.SharedSignal(&s, "")
		mood := setup.SharedSignal(&s, "calm")
		notes := setup.GlobalSignal(&s, []Note{})
		scratch := setup.Signal(&s, 0)
		arrival := setup.Signal(&s, arrived(ctx))

		s.OnMount(func() vango.Cleanup {
			arrival.Set(arrive(ctx))
			return nil
		})

		pin := func() {
			note, ok := noteFrom(message.Peek(), color.Peek())
			if !ok {
				return
			}
			vango.TxNamed("Board:Pin", func() {
				notes.Update(func(there []Note) []Note { return pinned(there, note) })
				message.Set("")
			})
		}

		return func() *vango.VNode {
			return house(
				wall{
					arrival: arrival.Get(), notes: notes.Get(), message: message.Get(), color: color.Get(),
					typed: message.Set, choose: color.Set, pin: pin,
				},
				berth{
					arrival: arrival.Get(), draft: draft.Get(), count: strconv.FormatInt(count.Get(), 10), scratch: scratch.Get(),
					typed: draft.Set, more: count.Inc, scribble: scratch.Inc,
				},
				moods(mood.Get(), mood.Set),
			)
		}
	})
}
