package embedded

import (
	"fmt"
	"log/slog"
)

// A logger is a slog.Logger as the server wants one.
type logger struct{ *slog.Logger }

// Noticef logs what the server does when all is well.
func (l *logger) Noticef(f string, v ...any) { l.Info("nats: " + fmt.Sprintf(f, v...)) }

// Warnf logs a warning.
func (l *logger) Warnf(f string, v ...any) { l.Warn("nats: " + fmt.Sprintf(f, v...)) }

// Fatalf logs what a server of its own would exit for.
func (l *logger) Fatalf(f string, v ...any) { l.Error("nats: " + fmt.Sprintf(f, v...)) }

// Errorf logs an error.
func (l *logger) Errorf(f string, v ...any) { l.Error("nats: " + fmt.Sprintf(f, v...)) }

// Debugf logs details, if the server is told to.
func (l *logger) Debugf(f string, v ...any) { l.Debug("nats: " + fmt.Sprintf(f, v...)) }

// Tracef logs the protocol, if the server is told to.
func (l *logger) Tracef(f string, v ...any) { l.Debug("nats: " + fmt.Sprintf(f, v...)) }
