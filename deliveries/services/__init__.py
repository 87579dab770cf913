"""What a person or a client can ask for, each verb once. The API, the portal, the admin, tasks and commands call these.

Endpoints:

- `endpoints` finds, makes and changes them; `stopping` stops them and lets them go on; `endpoint_deletion` ends them.
  All of these change as `endpoint_changes` says, what they may change is in `endpoint_settings`, and `snapshots` keeps
  what explain needs. `ownership` has a new URL prove that it wants webhooks.
- `subscriptions`, `secrets`, `credentials` are what an endpoint has; `trying` is to see what they would do.
- `health`, `condition`, `failing`: how an endpoint does, and when it is disabled for it. `missed` is what it did not get.
- `polling` hands out what waits in the line of an endpoint that is not called. `hosts` finds endpoints by host.

History:

- `events`, `deliveries`: found, sent again, tried again, cancelled; `picked` does that to many. `erasing` erases payloads.
- `explain` says why an endpoint got an event or not; `sent` shows the request again; `routing` asks where it would go now.
- `listing`, `searching`, `history` are what lists share. `live` is what happens now.
- `activity`, `stats` count over time, by `figures`; `usage` counts for invoices.

Work on much:

- `jobs` of tenants, done by `job_work`; `resending` says what is sent again, `exports` writes files.
- `bulk` does what operators want done to many things: `bulk_actions`, to what `bulk_selection` finds.
- `slices` is what both have in common.

What comes in: `sources`; `doors` and `receiving` take a request, `arrivals` is what people do with it.

What people are told: `announcements` become operational events and `notices`, which `notice_sending` sends in the words of
`notice_texts`; `summaries` come each day or week; `slack` says where to.

The platform: `overview` for operators, `tenants` follows their suspension, `outgoing` opens the transport as the settings
have it, `traces` are made where somebody collects them, `forgetting` ends old bookkeeping.
"""
