package rpc

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// all chooses every session.
func all(context.Context) bool { return true }

// A session that is asked to dial again goes on: the App decides when it opens another one.
func TestEachSessionIsAskedOnceToDialAgain(t *testing.T) {
	bubble(t, func(t *testing.T, b *base) {
		const pause = 3 * time.Second
		asked := make(chan time.Time, 10)
		began := time.Now()
		var sessions []*Session
		for range 3 {
			s := b.connect()
			s.OnRedial(func() { asked <- time.Now() })
			sessions = append(sessions, s)
		}
		stream := must(Watch[number](t.Context(), sessions[0], "Events", &empty{}))
		if _, err := stream.Receive(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for range 2 {
			b.Redial(t.Context(), all, func() time.Duration { return pause })
		}
		synctest.Wait()
		for n := range len(sessions) {
			select {
			case at := <-asked: // one after the other, however many there are
				if want := time.Duration(n+1) * pause; at.Sub(began) != want {
					t.Errorf("a session was asked after %s, not %s", at.Sub(began), want)
				}
			default:
				t.Fatalf("%d sessions were asked", n)
			}
		}
		if len(asked) != 0 || time.Since(began) != 3*pause {
			t.Errorf("after %s sessions were asked %d times more", time.Since(began), len(asked))
		}
		for _, s := range sessions {
			if _, err := Call[data](t.Context(), s, "Echo", &data{Value: []byte("hello")}); err != nil {
				t.Errorf("a call afterwards: %v", err)
			}
		}
		select {
		case <-stream.Retired():
			t.Error("the stream was told that another session is there")
		default:
		}
		sessions[0].Retire()
		sessions[0].Retire()
		<-stream.Retired()
		stream.Close()
	})
}

func TestOnlySessionsThatAreChosenAreAskedToDialAgain(t *testing.T) {
	bubble(t, func(t *testing.T, b *base) {
		asked := make(chan struct{}, 10)
		b.connect().OnRedial(func() { asked <- struct{}{} })
		synctest.Wait()
		none := func(context.Context) bool { return false }
		b.Redial(t.Context(), none, func() time.Duration { t.Error("there is nobody to wait for"); return 0 })
		// A stop of the Base does not wait for all who were to be asked.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if after := took(func() { b.Redial(ctx, all, func() time.Duration { return time.Hour }) }); after != time.Second {
			t.Errorf("it returned after %s", after)
		}
		if synctest.Wait(); len(asked) != 0 {
			t.Error("a session was asked that was not chosen")
		}
	})
}

// The Base may ask before the App listens.
func TestAnEarlyRedialIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := rawBase(t)
		p.send(frame{kind: kindRedial})
		synctest.Wait()
		asked := make(chan struct{}, 10)
		s.OnRedial(func() { asked <- struct{}{} })
		if synctest.Wait(); len(asked) != 1 {
			t.Errorf("the App was asked %d times", len(asked))
		}
	})
}
