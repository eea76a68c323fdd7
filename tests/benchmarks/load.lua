-- The request wrk repeats, and its result as one line of JSON. Arguments: model, key.
function init(args)
  wrk.method = "POST"
  wrk.path = "/v1/chat/completions"
  -- As the front door asks: a fresh connection for every request, so that whichever worker is free takes it.
  wrk.headers["Connection"] = "close"
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Authorization"] = "Bearer " .. args[2]
  wrk.body = '{"model": "' .. args[1] .. '", "messages": [{"role": "user", "content": "Hello"}]}'
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "failed": %d, "p50_ms": %f, "p95_ms": %f}\n',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3))
end
