// The sink: five vendors' endpoints under path prefixes that take everything, answer as the vendor does, and count.
//
//	sink PORT
//
// GET /report gives {"cpu_seconds": N, "vendors": {NAME: {"requests": N, "items": N, "bytes": N}}}.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// vendor is how one vendor's items are counted and how it answers.
type vendor struct {
	// mark stands once in each item.
	mark   []byte
	status int
	answer []byte
	// results, when set, makes the answer from the body.
	results                func(body []byte) []byte
	requests, items, bytes atomic.Int64
}

var userMark = []byte(`"user_id":"`)

var vendors = map[string]*vendor{
	"teak":      {mark: userMark, status: 200, results: teakResults},
	"12traits":  {mark: []byte(`"player_id":`), status: 201, answer: []byte(`{"code":201,"message":"ingested","data":null}`)},
	"parcelvoy": {mark: []byte(`"external_id":`), status: 204},
	"traitly":   {mark: []byte(`"customer_id":`), status: 200, answer: []byte(`{"data":[{"success":1}],"metadata":{},"object":"event"}`)},
	"swrve":     {mark: []byte(`"time":`), status: 200, answer: []byte(`{}`)},
}

// teakResults is Teak's answer to a batch: a result an event, in their order.
func teakResults(body []byte) []byte {
	out := make([]byte, 0, 4096)
	out = append(out, `{"status":"ok","results":[`...)
	count := 0
	for {
		start := bytes.Index(body, userMark)
		if start < 0 {
			break
		}
		body = body[start+len(userMark):]
		end := bytes.IndexByte(body, '"')
		if count > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"status":"ok","user_id":"`...)
		out = append(out, body[:end]...)
		out = append(out, `"}`...)
		count++
	}
	return fmt.Appendf(out, `],"summary":{"total_events":%d,"successful_events":%d,"failed_events":0}}`, count, count)
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// read takes the body, unzipped.
func read(into *bytes.Buffer, r *http.Request) error {
	var from io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		zipped, err := gzip.NewReader(r.Body)
		if err != nil {
			return err
		}
		from = zipped
	}
	_, err := io.Copy(into, from)
	return err
}

func take(to *vendor, w http.ResponseWriter, r *http.Request) {
	buffer := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(buffer)
	buffer.Reset()
	if err := read(buffer, r); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	body := buffer.Bytes()
	to.requests.Add(1)
	to.bytes.Add(int64(len(body)))
	to.items.Add(int64(bytes.Count(body, to.mark)))
	answer := to.answer
	if to.results != nil {
		answer = to.results(body)
	}
	if answer != nil {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(to.status)
	w.Write(answer)
}

func report(w http.ResponseWriter, _ *http.Request) {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	counts := map[string]map[string]int64{}
	for name, to := range vendors {
		counts[name] = map[string]int64{"requests": to.requests.Load(), "items": to.items.Load(), "bytes": to.bytes.Load()}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"cpu_seconds": seconds(used.Utime) + seconds(used.Stime), "vendors": counts})
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: sink PORT")
	}
	http.HandleFunc("GET /report", report)
	http.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		to, known := vendors[name]
		if !known {
			http.NotFound(w, r)
			return
		}
		take(to, w, r)
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
