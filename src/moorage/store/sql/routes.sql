-- name: owner  who owns a route key (tombstones included)
select * from route_owners where route_key = :route_key;

-- name: owners  all routes that somebody owns
select * from route_owners where removed = 0 order by route_key;

-- name: owners_of_app  all routes of an app
select * from route_owners where removed = 0 and app = :app order by route_key;

-- name: create_owner  the first owner of a route key; does nothing when the key is known
insert into route_owners (route_key, epoch, app, environment, deployment, deployment_number, artifact, cure, updated_ms)
values (:route_key, 1, :app, :environment, :deployment, :deployment_number, :artifact, :cure, :now_ms)
on conflict (route_key) do nothing;

-- name: swap_owner  compare-and-swap: a new owner only while the expected epoch is the current one
update route_owners
set epoch = epoch + 1, app = :app, environment = :environment, deployment = :deployment,
    deployment_number = :deployment_number, artifact = :artifact, cure = :cure, held = 0, removed = 0, updated_ms = :now_ms
where route_key = :route_key and epoch = :expected_epoch;

-- name: remove_owner  compare-and-swap to nobody
update route_owners set epoch = epoch + 1, removed = 1, held = 0, updated_ms = :now_ms
where route_key = :route_key and epoch = :expected_epoch and removed = 0;

-- name: hold_route  compare-and-swap of the hold flag under an epoch
update route_owners set held = :held, updated_ms = :now_ms
where route_key = :route_key and epoch = :expected_epoch and removed = 0;

-- name: append_history  remember an owner
insert into route_history (route_key, epoch, deployment, deployment_number, artifact, operation, actor, at_ms)
values (:route_key, :epoch, :deployment, :deployment_number, :artifact, :operation, :actor, :at_ms);

-- name: history  the owners of a route key, newest first
select * from route_history where route_key = :route_key order by epoch desc limit :limit;
