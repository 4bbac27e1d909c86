package routes

import (
	"example.com/moorage/vango-board/app/board"

	"github.com/vango-go/vango"
	. "github.com/vango-go/vango/el"
)

// IndexPage is the board.
func IndexPage(ctx vango.Ctx) *vango.VNode {
	return Div(Class("page"), board.Board(vango.NoProps{}))
}
