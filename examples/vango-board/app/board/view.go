package board

import (
	"strconv"
	"time"

	"github.com/vango-go/vango"
	. "github.com/vango-go/vango/el"
)

// wall is what the shared half of the page shows and does.
type wall struct {
	arrival        Arrival
	notes          []Note
	message, color string
	typed, choose  func(string)
	pin            func()
}

// berth is what the session's own half of the page shows and does.
type berth struct {
	arrival        Arrival
	draft, count   string
	scratch        int
	typed          func(string)
	more, scribble func()
}

// house is the whole page. Everything that can be pressed or written in comes first, what a version adds after that,
// and the notes last: the framework numbers the elements in this order, and a browser that was cut off sends what
// was pressed meanwhile under the numbers that it knows. So the numbers must not shift when a new version takes over.
func house(w wall, b berth, added ...*vango.VNode) *vango.VNode {
	return Div(Class("house"),
		Section(Class("writing"), AriaLabel("Write a note"), composer(w), glance(b.arrival)),
		Aside(ID("session"), Class("session"), AriaLabelledBy("session-title"),
			H2(ID("session-title"), Text("Your session")),
			P(Class("outcome", b.arrival.Kind()), Span(ID("story"), Text(b.arrival.Story()))),
			P(Class("meaning"), Text(b.arrival.Meaning())),
			draftField(b), counter(b), scratchpad(b), added, facts(),
		),
		Section(Class("wall"), AriaLabel("Notes"), board(w)),
	)
}

func glance(arrival Arrival) *vango.VNode {
	return A(Class("glance"), Href("#session"), Text("Your session: "+arrival.Story()+" ↓"))
}

func composer(w wall) *vango.VNode {
	return Div(Class("composer", "tone-"+known(w.color)),
		Label(Class("hidden"), For("note-text"), Text("Your note")),
		// The text stands twice: as the element's content for a page that is loaded, as its value for one that is open.
		Textarea(ID("note-text"), Rows(3), MaxLength(noteLetters), Placeholder("What should everyone know?"),
			Value(w.message), OnInput(w.typed), Text(w.message)),
		Div(Class("tools"),
			Div(Class("palette"), Role("group"), AriaLabel("Colour"),
				Range(palette, func(name string, _ int) *vango.VNode { return swatch(name, w) })),
			P(Class("chosen"), Span(ID("color"), Text(known(w.color)))),
			Button(ID("note-add"), Type("button"), Class("pin"), OnClick(w.pin), Text("Pin it")),
		),
	)
}

func swatch(name string, w wall) *vango.VNode {
	pressed := "false"
	if name == known(w.color) {
		pressed = "true"
	}
	return Button(ID("color-"+name), Type("button"), Class("swatch", "tone-"+name), AriaPressed(pressed), AriaLabel(name),
		OnClick(func() { w.choose(name) }), Span())
}

// board lists the notes. A page is rendered before its session exists, and then without the shared notes: so they are
// shown by the live session only, and nobody is told that the board is empty before that is known.
func board(w wall) *vango.VNode {
	var shown *vango.VNode
	switch {
	case !w.arrival.Live:
		shown = P(Class("empty"), Text("Looking for the notes …"))
	case len(w.notes) == 0:
		shown = P(Class("empty"), Text("No notes yet. The first one is yours."))
	default:
		shown = Ul(Class("notes"), RangeKeyed(w.notes, func(note Note) any { return note.ID }, sheet))
	}
	return Div(ID("notes"), AriaLive("polite"), shown)
}

func sheet(note Note) *vango.VNode {
	at := time.UnixMilli(note.AtMs).UTC()
	return Li(Class("note", "tone-"+known(note.Color)),
		P(Class("words"), Text(note.Text)),
		P(Class("foot"), Time_(Attr("datetime", at.Format(time.RFC3339)), Text(at.Format("15:04 UTC")))),
	)
}

func draftField(b berth) *vango.VNode {
	return Div(Class("field"),
		Label(For("draft"), Text("Draft, seen by you alone")),
		Input(ID("draft"), Type("text"), Value(b.draft), MaxLength(noteLetters), Autocomplete("off"), OnInput(b.typed)),
		P(Class("kept"), Text("Kept: "), Span(ID("draft-echo"), Text(b.draft))),
	)
}

func counter(b berth) *vango.VNode {
	return tally("tally", "Counter", "kept with the session", "count", b.count, "inc", b.more)
}

func scratchpad(b berth) *vango.VNode {
	return tally("tally passing", "Scratch", "kept in memory only, gone after a move", "scratch", strconv.Itoa(b.scratch), "scratch-inc", b.scribble)
}

// tally is a number with a button that raises it, and what becomes of the number.
func tally(class, name, fate, id, value, buttonID string, more func()) *vango.VNode {
	return Div(Class(class),
		P(Class("what"), Text(name), Small(Text(fate))),
		Span(Class("number"), ID(id), Text(value)),
		Button(ID(buttonID), Type("button"), Class("more"), AriaLabel("Raise "+name), OnClick(more), Text("+1")),
	)
}

func facts() *vango.VNode {
	return Dl(Class("facts"),
		Dt(Text("Version")), Dd(Text(Version)),
		Dt(Text("Allocation")), Dd(Span(ID("allocation"), Text(Allocation()))),
	)
}
