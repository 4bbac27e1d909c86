package board

import (
	"github.com/vango-go/vango"
	. "github.com/vango-go/vango/el"
)

var moodNames = []string{"calm", "busy", "stormy"}

// moods lets the visitor say how it goes.
func moods(current string, choose func(string)) *vango.VNode {
	return Div(Class("field"),
		P(Text("Mood: "), Strong(ID("mood"), Text(current))),
		Div(Class("choices"), Role("group"), AriaLabel("Mood"),
			Range(moodNames, func(name string, _ int) *vango.VNode {
				pressed := "false"
				if name == current {
					pressed = "true"
				}
				return Button(ID("mood-"+name), Type("button"), AriaPressed(pressed), OnClick(func() { choose(name) }), Text(name))
			})),
	)
}
