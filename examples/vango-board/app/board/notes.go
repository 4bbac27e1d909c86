package board

import (
	"crypto/rand"
	"slices"
	"strings"
	"time"
)

const (
	noteLetters = 280
	notesKept   = 12
)

var palette = []string{"yellow", "coral", "mint", "sky"}

// Note is one sheet on the board.
type Note struct {
	ID    string
	Text  string
	Color string
	AtMs  int64
}

// VangoSchemaID keeps the notes readable when the type is moved or renamed.
func (Note) VangoSchemaID() string { return "vango-board:note:v1" }

// noteFrom makes a note of what somebody wrote; false when there is nothing to pin.
func noteFrom(text, color string) (Note, bool) {
	text = strings.TrimSpace(text)
	if text == "" {
		return Note{}, false
	}
	if letters := []rune(text); len(letters) > noteLetters {
		text = string(letters[:noteLetters])
	}
	return Note{ID: rand.Text(), Text: text, Color: known(color), AtMs: time.Now().UnixMilli()}, true
}

// pinned is the board with one more note: newest first, the oldest beyond the limit gone.
func pinned(there []Note, note Note) []Note {
	kept := append([]Note{note}, there...)
	return kept[:min(len(kept), notesKept)]
}

// known is the colour itself, or the first of the palette for one that this version does not have.
func known(color string) string {
	if slices.Contains(palette, color) {
		return color
	}
	return palette[0]
}
