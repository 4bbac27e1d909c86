package routes

import (
	"example.com/moorage/vango-board/app/board"

	"github.com/vango-go/vango"
	. "github.com/vango-go/vango/el"
)

// Layout is the frame around each page, and brings the live client in.
func Layout(ctx vango.Ctx, children vango.Slot) *vango.VNode {
	return Html(Lang("en"),
		Head(
			Meta(Charset("utf-8")),
			Meta(Name("viewport"), Content("width=device-width, initial-scale=1")),
			Meta(Name("color-scheme"), Content("light dark")),
			Meta(Name("description"), Content("A board of notes, shared by everyone who is here.")),
			Title(Text("Board")),
			LinkEl(Rel("icon"), Href("/icon.svg")),
			LinkEl(Rel("stylesheet"), Href(ctx.Asset("board.css"))),
			Script(Src(ctx.Asset("cursor.js")), Attr("defer", true)),
		),
		Body(
			Header(Class("bar"),
				P(Class("brand"),
					Svg(ViewBox("0 0 32 32"), AriaHidden(true),
						Path(Class("sheet"), D("M5 5h22v14l-8 8H5z")), Path(Class("fold"), D("M27 19h-8v8z"))),
					Text("Board"),
					Span(Class("version"), ID("version"), Text(board.Version)),
				),
				Nav(Class("pages"),
					Link("/", ID("to-board"), Text("Notes")),
					Link("/about", ID("to-about"), Text("About")),
				),
				P(Class("connection"), Role("status"),
					Span(Class("when-connecting"), Text("Connecting")), Span(Class("when-live"), Text("Live")),
					Span(Class("when-reconnecting"), Text("Reconnecting")), Span(Class("when-disconnected"), Text("Not connected")),
				),
			),
			Main(children),
			RuntimeScripts(ctx),
		),
	)
}
