-- Managed by Modelyard (role haproxy). What a pool decides that HAProxy's own algorithms do not.
-- All of it runs in one thread (`bind` of the frontend `pools`).

-- A host of a conversation gets at most this many times its even share of the requests of the pool.
local SHARE = 1.25

-- The host whose cache has a conversation, in txn.host: of all hosts the one that ranks first for
-- its key, unless it is out, full or has more than its share; then the next one. Every gateway
-- ranks alike, without telling the others, and a host that comes or goes moves no conversations but
-- its own (rendezvous hashing, with bounded loads). Without txn.host the fewest requests decide,
-- and a request waits for whichever host is free first. HAProxy's `balance hash` would have a
-- request wait for its host while others are free, and `stick` send it to one that is drained.
core.register_action("choose_host", { "http-req" }, function(txn)
  local pool, key = txn:get_var("txn.pool"), txn:get_var("txn.affinity")
  local backend = core.backends[pool]
  local up = backend and txn.f:nbsrv(pool) or 0
  if up < 2 then
    return
  end
  local most = math.ceil(SHARE * (txn.f:be_conn(pool) + 1) / up)
  local ranks, names = {}, {}
  for name in pairs(backend.servers) do
    ranks[name] = txn.c:xxh64(key .. name)
    names[#names + 1] = name
  end
  table.sort(names, function(one, other)
    return ranks[one] > ranks[other]
  end)
  for _, name in ipairs(names) do
    local seen = backend.servers[name]:get_stats()
    -- `UP 1/2` is on its way down. No limit is no slim.
    local limit = tonumber(seen.slim) or math.huge
    if seen.status == "UP" and seen.scur < math.min(most, limit) and seen.qcur == 0 then
      txn:set_var("txn.host", name)
      return
    end
  end
end)
