"""The one page of the service: type a text, see the video. No request leaves the machine."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;
color:#1c1c1c;background:#fff}
textarea,select,button{font:inherit;width:100%;box-sizing:border-box;margin:.25rem 0 1rem;
padding:.5rem}
button{cursor:pointer}video{width:100%;background:#000}#said{min-height:1.5em}
@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}}
"""

_SCRIPT: Final = """
const $=id=>document.getElementById(id);
fetch('/v1/avatars').then(r=>r.ok?r.json():{avatars:[]}).then(b=>{
  for(const name of b.avatars){$('avatar').add(new Option(name,name))}
});
$('form').addEventListener('submit',async event=>{
  event.preventDefault();
  $('go').disabled=true;$('said').textContent='Rendering\u2026';
  try{
    const answer=await fetch('/v1/speak',{method:'POST',
      headers:{'Content-Type':'application/json'},
      body:JSON.stringify({text:$('text').value,avatar:$('avatar').value||null})});
    if(!answer.ok){
      const problem=await answer.json();
      throw new Error(problem.detail+(problem.remedy?' ('+problem.remedy+')':''));
    }
    const factor=answer.headers.get('X-Real-Time-Factor');
    const video=$('video');
    if(video.src)URL.revokeObjectURL(video.src);
    video.src=URL.createObjectURL(await answer.blob());video.hidden=false;
    $('said').textContent='Done, real-time factor '+factor+'.';
    video.play().catch(()=>{});
  }catch(error){$('said').textContent=error.message}
  finally{$('go').disabled=false}
});
"""

PAGE: Final = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>MuseTalk serving</title>
<meta name="viewport" content="width=device-width,initial-scale=1">
<link rel="icon" href="data:,"><style>{_STYLE}</style></head><body>
<h1>MuseTalk serving</h1>
<p>An avatar speaks your text. The video is made by AI, and its metadata says so.</p>
<form id="form">
<label for="text">Text</label>
<textarea id="text" rows="4" required>Hello! I am a talking avatar.</textarea>
<label for="avatar">Avatar</label><select id="avatar"><option value="">default</option></select>
<button id="go">Speak</button></form>
<p id="said" role="status"></p><video id="video" controls playsinline hidden></video>
<script>{_SCRIPT}</script></body></html>
"""


def _source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; script-src {_source(_SCRIPT)}; style-src {_source(_STYLE)}; "
    "connect-src 'self'; media-src blob:; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
