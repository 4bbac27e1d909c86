// Command server runs the board.
//
// It reads HOST (127.0.0.1), PORT (8080), RESUME_WINDOW (2m) and BOARD_RESUME_HOOK (on, or off). Everything else, the
// session store above all, is the framework's own: see its VANGO_ variables.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"example.com/moorage/vango-board/app/routes"

	"github.com/vango-go/vango"
)

func main() {
	if err := run(); err != nil {
		slog.Error("the board cannot serve", "error", err)
		os.Exit(1)
	}
}

func run() error {
	window, err := time.ParseDuration(env("RESUME_WINDOW", "2m"))
	if err != nil || window <= 0 {
		return fmt.Errorf("RESUME_WINDOW must be a duration such as 2m, not %q", os.Getenv("RESUME_WINDOW"))
	}
	var app *vango.App
	config := vango.Config{
		Session:  vango.SessionConfig{ResumeWindow: vango.ResumeWindow(window)},
		Static:   vango.StaticConfig{Dir: "public", Prefix: "/"},
		Security: vango.SecurityConfigFromEnv(""),
		DevMode:  os.Getenv("VANGO_DEV") == "1",
	}
	if env("BOARD_RESUME_HOOK", "on") != "off" {
		config.OnSessionResume = func(_ context.Context, session *vango.Session) error {
			mountRestored(app, session)
			return nil
		}
	}
	if app, err = vango.New(config); err != nil {
		return err
	}
	routes.Register(app)

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return app.Run(ctx, net.JoinHostPort(env("HOST", "127.0.0.1"), env("PORT", "8080")))
}

// mountRestored makes a session that came from the store usable; Vango v0.2.4 leaves two things out. Nothing is
// mounted, and the framework mounts the page only when the browser asks for another URL than the session remembers:
// so it is given one that no browser asks for. And there is no router: links would change the address, not the page.
func mountRestored(app *vango.App, session *vango.Session) {
	if session.Stats().ComponentCount > 0 {
		return // it was in this process all the time
	}
	session.SetInitialURL("/", map[string]string{"restored": "yes"})
	session.SetRouter(app.Server().Router())
}

func env(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}
