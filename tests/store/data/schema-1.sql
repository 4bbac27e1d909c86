-- The control database. This file is the truth; a schema change raises SCHEMA_VERSION and adds a migration.
-- Times are milliseconds since the Unix epoch. JSON columns hold canonical JSON.

create table meta (
    name  text primary key,
    value text not null
) strict;

create table counters (
    name  text primary key,
    value integer not null
) strict;

create table apps (
    id         text primary key,
    name       text not null unique,
    created_ms integer not null
) strict;

create table environments (
    number            integer primary key,
    id                text not null unique,
    app               text not null,     -- no reference: allocations that have been name it after the app's end
    kind              text not null check (kind in ('production', 'preview')),
    deployment_number integer,           -- previews only
    store_port        integer,           -- null: nothing here needs a session store
    store_password    text not null,
    created_ms        integer not null,
    closed_ms         integer
) strict;
create unique index environments_production on environments (app) where kind = 'production' and closed_ms is null;

create table artifacts (
    digest     text primary key,
    app        text not null,
    manifest   text not null,
    size_bytes integer not null,
    created_ms integer not null
) strict;

create table deployments (
    id         text primary key,
    app        text not null references apps (name) on delete cascade,
    number     integer not null,
    state      text not null,
    artifact   text references artifacts (digest),
    source     text not null,
    operation  text not null,
    created_ms integer not null,
    unique (app, number)
) strict;

create table route_owners (
    route_key         text primary key,
    epoch             integer not null,
    app               text not null,
    environment       integer not null,
    deployment        text not null,
    deployment_number integer not null,
    artifact          text not null,
    held              integer not null default 0,
    removed           integer not null default 0,  -- a tombstone keeps the epoch
    updated_ms        integer not null
) strict;

create table route_history (
    route_key         text not null,
    epoch             integer not null,
    deployment        text not null,
    deployment_number integer not null,
    artifact          text not null,
    operation         text not null,
    actor             text not null,
    at_ms             integer not null,
    primary key (route_key, epoch)
) strict;

create table allocations (
    number             integer primary key,
    id                 text not null unique,
    app                text not null,
    environment        text not null,
    environment_number integer not null,
    deployment         text not null,
    deployment_number  integer not null,
    artifact           text not null,
    host               text not null,
    port               integer not null,
    state              text not null,
    posture            text not null,
    want               text not null check (want in ('run', 'stop')),
    version            integer not null,
    log_index          integer not null,   -- of the newest log entry about it; its port is reused after all edges have it
    store_password     text not null,
    store_enabled      integer not null default 1,
    reason             text not null default '',
    detail             text not null default '',
    exit_code          integer,
    pid                integer,
    log_tail           text not null default '[]',
    operation          text not null,
    created_ms         integer not null,
    ready_ms           integer,
    ended_ms           integer
) strict;
create index allocations_live on allocations (environment_number) where posture <> 'gone';

create table allocation_transitions (
    allocation text not null,
    version    integer not null,
    at_ms      integer not null,
    actor      text not null,
    state      text not null,
    posture    text not null,
    reason     text not null,
    primary key (allocation, version)
) strict;

create table operations (
    id            text primary key,
    kind          text not null,
    app           text not null,
    parent        text,
    state         text not null,
    input         text not null,
    facts         text not null default '{}',
    problem       text,
    lease_owner   text,
    token         integer not null default 0,
    cancel        integer not null default 0,
    actor         text not null,
    created_ms    integer not null,
    updated_ms    integer not null,
    finished_ms   integer
) strict;
create index operations_open on operations (created_ms) where finished_ms is null;
create index operations_by_app on operations (app, created_ms);

create table operation_stages (
    operation text not null references operations (id) on delete cascade,
    seq       integer not null,
    state     text not null,
    note      text not null,
    detail    text not null,
    actor     text not null,
    token     integer not null,
    at_ms     integer not null,
    primary key (operation, seq)
) strict;

create table audit (
    seq     integer primary key autoincrement,
    at_ms   integer not null,
    actor   text not null,
    action  text not null,
    subject text not null,
    outcome text not null,
    detail  text not null
) strict;

create table outbox (
    log_index integer primary key,
    at_ms     integer not null,
    event     text not null
) strict;

create table idempotency (
    workspace   text not null,
    key         text not null,
    fingerprint text not null,
    status      integer not null,
    body        text not null,
    created_ms  integer not null,
    primary key (workspace, key)
) strict;

create table secrets (
    app        text not null references apps (name) on delete cascade,
    name       text not null,
    scope      text not null,
    sealed     blob not null,
    version    integer not null,
    updated_ms integer not null,
    primary key (app, name, scope)
) strict;

create table edges (
    id            text primary key,
    acked_index   integer not null,
    seen_ms       integer not null
) strict;
