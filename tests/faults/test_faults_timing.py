"""A device of somebody else cannot be told from one that is not there by how long the answer takes."""

import random
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import pytest
import pytest_asyncio
from pydantic import SecretStr
from supervised import supervised

from mor_requests import GET, UPDATE, get, update
import asyncio

pytestmark = pytest.mark.faults
FOREIGN = ("200", "201", "300", "400", "410", "420")
MISSING = ("299", "209", "399", "409", "499", "429")

def request(path, values):
    body = urlencode(values).encode()
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n").encode()+body

QUESTIONS = {
    "device_callflow_get, device_id": lambda device: request(GET, get(device, u="user1")),
    "device_callflow_update, device_id": lambda device: request(UPDATE, update(u="user1", device_id=device)),
    "forward_to_device": lambda device: request(UPDATE, update(u="user1", forward_to_device=device)),
    "fax_device": lambda device: request(UPDATE, update(u="user1", callflow_action="fax_detect", forward_to_device=None, fax_device=device)),
}

def ask(line, question):
    t=time.perf_counter_ns()
    line.sendall(question)
    r=b""
    while not r.endswith((b"</page>\n",)):
        r+=line.recv(65536)
    d=time.perf_counter_ns()-t
    return d,r

async def test_x(demo_url, tmp_path):
    async with supervised(demo_url, tmp_path/"log") as service:
        def go():
            u=urlsplit(service.url)
            line=socket.create_connection((u.hostname,u.port)); line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY,1)
            for name,q in QUESTIONS.items():
                rng=random.Random(1)
                N=3000
                order=[i%2 for i in range(2*N)]; rng.shuffle(order)
                S=([],[])
                bodies=set()
                for k in order:
                    dev=rng.choice((FOREIGN,MISSING)[k])
                    d,r=ask(line,q(dev))
                    S[k].append(d/1e3); bodies.add(r.split(b"\r\n\r\n")[1])
                f,m=S
                mf,mm=statistics.median(f),statistics.median(m)
                allv=sorted([(v,0) for v in f]+[(v,1) for v in m])
                ranks=sum(i for i,(v,k) in enumerate(allv,1) if k==0)
                auc=(ranks-len(f)*(len(f)+1)/2)/(len(f)*len(m))
                print(name, len(bodies), "median", round(mf,1), round(mm,1), "diff", round(mf-mm,2), "min", min(f),min(m), "p10", statistics.quantiles(f,n=10)[0],statistics.quantiles(m,n=10)[0], "auc", round(auc,4))
        await asyncio.to_thread(go)
