-- Sends the requests of a file one after the other, and ends with one line of JSON.
-- wrk -s wrk.lua URL -- FILE; a line of the file is: path, Authorization header or nothing, form; tabs between.

local requests = {}
local at = 0

function init(args)
  for line in io.lines(args[1]) do
    local path, authorization, form = line:match("^(.-)\t(.-)\t(.*)$")
    local headers = { ["Content-Type"] = "application/x-www-form-urlencoded" }
    if authorization ~= "" then
      headers["Authorization"] = authorization
    end
    requests[#requests + 1] = wrk.format("POST", path, headers, form)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency, _)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.status + summary.errors.timeout
  io.write(string.format(
    '{"requests": %d, "seconds": %.3f, "failed": %d, "p50_ms": %.3f, "p99_ms": %.3f}\n',
    summary.requests, summary.duration / 1e6, failed, latency:percentile(50) / 1000, latency:percentile(99) / 1000
  ))
end
