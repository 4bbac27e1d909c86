-- name: insert_app  create an app
insert into apps (id, name, created_ms) values (:id, :name, :created_ms) on conflict (name) do nothing;

-- name: app  one app by name
select * from apps where name = :name;

-- name: apps  all apps
select * from apps order by name;

-- name: delete_app  remove an app; deployments and secrets go with it
delete from apps where name = :name;

-- name: insert_environment  create an environment
insert into environments (number, id, app, kind, deployment_number, store_port, store_password, created_ms)
values (:number, :id, :app, :kind, :deployment_number, :store_port, :store_password, :created_ms);

-- name: environment  one environment by id
select * from environments where id = :id;

-- name: environment_numbered  one environment by number
select * from environments where number = :number;

-- name: environments  open environments
select * from environments where closed_ms is null order by number;

-- name: environments_of_app  open environments of an app
select * from environments where closed_ms is null and app = :app order by number;

-- name: close_environment  end an environment
update environments set closed_ms = :now_ms where id = :id and closed_ms is null;

-- name: give_store_port  an environment gets a session store (or another port for it)
update environments set store_port = :port where id = :id;

-- name: insert_artifact  register an artifact; the same digest twice is one artifact
insert into artifacts (digest, app, manifest, size_bytes, created_ms)
values (:digest, :app, :manifest, :size_bytes, :created_ms) on conflict (digest) do nothing;

-- name: artifact  one artifact by digest
select * from artifacts where digest = :digest;

-- name: artifacts_unused  artifacts that no deployment names and nothing runs any more
select digest from artifacts
where digest not in (select artifact from deployments where artifact is not null)
  and digest not in (select artifact from allocations where posture <> 'gone');

-- name: delete_artifact  forget an artifact
delete from artifacts where digest = :digest;

-- name: insert_deployment  create a deployment
insert into deployments (id, app, number, state, source, operation, created_ms)
values (:id, :app, :number, 'queued', :source, :operation, :created_ms);

-- name: last_deployment_number  the highest deployment number of an app
select coalesce(max(number), 0) as number from deployments where app = :app;

-- name: deployment  one deployment by app and number
select * from deployments where app = :app and number = :number;

-- name: deployment_by_id  one deployment by id
select * from deployments where id = :id;

-- name: deployments_of_app  deployments of an app, newest first
select * from deployments where app = :app order by number desc limit :limit;

-- name: set_deployment_state  the state of its deploy operation
update deployments set state = :state, artifact = coalesce(:artifact, artifact) where id = :id;

-- name: set_deployment_facts  what was tried with a deployment's preview
update deployments set facts = :facts where id = :id;

-- name: put_secret  set a secret
insert into secrets (app, name, scope, sealed, version, updated_ms)
values (:app, :name, :scope, :sealed, 1, :now_ms)
on conflict (app, name, scope) do update
set sealed = excluded.sealed, version = version + 1, updated_ms = excluded.updated_ms;

-- name: delete_secret  unset a secret
delete from secrets where app = :app and name = :name and scope = :scope;

-- name: secrets_of_app  secrets of an app (sealed)
select * from secrets where app = :app order by name, scope;

-- name: insert_environment_secret  a secret that the platform made for an environment, unless it has one of this name
insert into environment_secrets (environment, name, sealed, version, updated_ms)
values (:environment, :name, :sealed, 1, :now_ms) on conflict (environment, name) do nothing;

-- name: rotate_environment_secret  compare-and-swap: a new value, the one so far becomes the previous
update environment_secrets
set previous = sealed, sealed = :sealed, version = version + 1, updated_ms = :now_ms
where environment = :environment and name = :name and version = :expected_version;

-- name: environment_secrets  secrets of an environment (sealed)
select * from environment_secrets where environment = :environment order by name;

-- name: delete_environment_secrets  secrets end with their environment
delete from environment_secrets where environment = :environment;
