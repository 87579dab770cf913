"""The hot path: how an accepted event reaches its endpoints. One step a file, here in the order in which they happen.

- `ingest` takes a publish: reads the body (`json_bytes`), checks it, and commits the event with its deliveries. What goes
  in and comes out is a `publication`; callers at the same time share a transaction (`group_commit`). In it are kept, too,
  the answer for who publishes the same again (`claims`) and the request that a source made an event of (`origins`).
- `fan_out` decides, inside that transaction, which endpoints are owed the event. `fifo` lets only the head of each
  ordering key be due.
- `wake`, after the commit, tells the lanes of those endpoints that work waits, and nudges a dispatcher if some were idle.
- `dispatch` is the loop that a dispatcher runs. Each turn it goes through the steps below. `needs` says which lanes to
  load, give back or look at next; `results` what an answer means for its delivery. What it has in memory is its `book`,
  with the `payloads` that the deliveries share.
  Two that are a `clerk` each talk to the database for it, on its own thread, which they leave to it while they wait (`hub`);
  the `heart`, a thread, renews its `lease`.
- `lanes` takes ready lanes, loads what is due in them, and releases them at the back of the queue; one such round of the
  lanes clerk is in `rounds`. `endpoints` is what must be known of an endpoint to send to it.
- `request` makes of a loaded delivery the request that goes out, by the steps below. `batch` says which go together.
- `body` makes the bytes in the format that the endpoint wants (`body_xml` and `body_form`, which read the payload with
  `json_as_written`, for those that are not JSON). Circles of webhooks end by their `hops`.
- `signing` signs the bytes that are about to be sent; `signature_template` adds the signature of another scheme, `tokens`
  the access token of an endpoint that wants one.
- `transport` sends them behind one small interface: `transport_curl`, the loop, with `curl_transfer`, a request on a
  handle of libcurl; or `transport_requests`, with `requests_exchange`, a request on a thread, and `requests_connections`.
  On the way, `resolver` finds the addresses of a host, `address_guard` refuses those that are not on the public
  internet, and `routes` remembers what the two said; `proxy` is the operator's own, if there is one. `failures` are the
  ways in which a request can end without an answer.
- `outcome` judges what came back.
- `retry` says when to try again, or that it is over; `health` when an endpoint that fails is left alone for a while.
- `record` writes attempts and deliveries in bulk, in one transaction (`arrays` spells what it writes). `announce` writes
  down what their owners may want to hear of: circuits that open and close, deliveries that failed for good.

Beside that way: `again` makes new deliveries of earlier events, `cancel` ends some that nobody wants any more, and
`polling` is the line of endpoints whose receivers fetch for themselves. `sweeps` repair what a crash or a lost wake left
behind; `retention` ends history.

`counters` gathers what `/metrics` shows, in memory, and adds it to a small table every few seconds; `tally` counts a
batch of results for it.

`rollups` counts history by minute and hour, for charts and statistics, after the fact and beside all of the above.

`tracing` makes spans of publishes and attempts, where operators collect traces; elsewhere it is not even loaded.

`partitions` keeps the tables' time slices ahead of need and drops the old ones; `database` is the loop's own connection.

Above the steps that touch the database stand the two orchestrators, `ingest` and `dispatch`; below them the pure ones
(`json_bytes`, `body`, `signing`, `outcome`, `retry`, `health`, `address_guard`), which get everything, the time included, as
arguments.
"""
