// Command server runs the board with a trouble of its own, named by BOARD_TROUBLE; without one it is the board.
//
//	deaf         does not hear that it should end (SIGTERM)
//	page-500     answers its health path, and its page with status 500
//	live-silent  answers its pages, accepts its live sockets and never says a word there
//	other-store  keeps its sessions where nobody listens, over the store that it was given
package main

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"example.com/moorage/vango-board/app/routes"

	"github.com/vango-go/vango"
)

const (
	livePath  = "/_vango/live"
	nobody    = "redis://127.0.0.1:9" // the discard port
	handshake = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
)

func main() {
	if err := run(os.Getenv("BOARD_TROUBLE")); err != nil {
		slog.Error("the board cannot serve", "error", err)
		os.Exit(1)
	}
}

func run(trouble string) error {
	if trouble == "other-store" {
		os.Setenv("VANGO_SESSION_STORE_URL", nobody)
	}
	var app *vango.App
	config := vango.Config{
		Session:  vango.SessionConfig{ResumeWindow: vango.ResumeWindow(2 * 60 * 1_000_000_000)},
		Static:   vango.StaticConfig{Dir: "public", Prefix: "/"},
		Security: vango.SecurityConfigFromEnv(""),
		OnSessionResume: func(_ context.Context, session *vango.Session) error {
			if session.Stats().ComponentCount == 0 {
				session.SetInitialURL("/", map[string]string{"restored": "yes"})
				session.SetRouter(app.Server().Router())
			}
			return nil
		},
	}
	app, err := vango.New(config)
	if err != nil {
		return err
	}
	routes.Register(app)
	address := net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT"))
	switch trouble {
	case "page-500", "live-silent":
		return http.ListenAndServe(address, spoiled(app, trouble))
	case "deaf":
		signal.Ignore(syscall.SIGINT, syscall.SIGTERM)
		return app.Run(context.Background(), address)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return app.Run(ctx, address)
}

// spoiled is the app behind a trouble.
func spoiled(app http.Handler, trouble string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case trouble == "page-500" && r.URL.Path == "/":
			http.Error(w, "the page is broken", http.StatusInternalServerError)
		case trouble == "live-silent" && strings.HasPrefix(r.URL.Path, livePath):
			say101(w, r)
		case strings.HasPrefix(r.URL.Path, "/_vango/health/"):
			fmt.Fprintln(w, "ok")
		default:
			app.ServeHTTP(w, r)
		}
	})
}

// say101 accepts a WebSocket and keeps silent on it.
func say101(w http.ResponseWriter, r *http.Request) {
	connection, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer connection.Close()
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + handshake))
	accept := base64.StdEncoding.EncodeToString(sum[:])
	fmt.Fprintf(connection, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\n\r\n", accept)
	_, _ = io.Copy(io.Discard, bufio.NewReader(buffered))
}
