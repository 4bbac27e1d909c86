package routes

import (
	"github.com/vango-go/vango"
	. "github.com/vango-go/vango/el"
)

// AboutPage says what survives what. It is a page of its own, so that moving between pages can be tried as well.
func AboutPage(ctx vango.Ctx) *vango.VNode {
	return Article(Class("prose"), ID("about"),
		H1(Text("What this board keeps")),
		P(Text("Every page here has a session in the server's memory. The server stores part of it, and a new process can "+
			"take it up from there: after a deploy, after a crash, without a reload.")),
		Dl(Class("fates"),
			fate("Notes", "Shared by everyone, stored the moment they are pinned."),
			fate("Draft, colour, counter", "Yours, stored when the connection ends, and every 30 seconds until then."),
			fate("Scratch", "In memory only: gone after every move, and meant to be."),
		),
		P(Link("/", ID("back"), Text("Back to the notes"))),
	)
}

func fate(what, becomes string) *vango.VNode {
	return Div(Dt(Text(what)), Dd(Text(becomes)))
}
