// The report's page: two videos in step, a line between them, figures that sort. Nothing is fetched.
"use strict";
document.documentElement.classList.add("js");

const all = (root, what) => [...root.querySelectorAll(what)];
const within = (value, low, high) => Math.min(Math.max(value, low), high);

// The bytes that a data address holds, under an address that every browser can seek in.
function blobAddress(data) {
  const comma = data.indexOf(",");
  const kind = data.slice(5, comma).split(";")[0];
  const text = atob(data.slice(comma + 1));
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return URL.createObjectURL(new Blob([bytes], { type: kind }));
}

function makePlayer(clip) {
  const root = clip.querySelector(".player");
  const heads = all(clip, ".head");
  if (!root) {
    heads.forEach((head) => (head.hidden = true));
    return null;
  }
  const step = Number(root.dataset.step), length = Number(root.dataset.seconds);
  const videos = all(root, "video"), [lead, follow] = videos;
  const find = (what) => root.querySelector(what);
  const bar = find(".time"), clock = find(".clock"), button = find(".play"), loop = find(".loop");
  const stage = find(".stage"), cut = find(".cut"), masks = find(".masks"), drawing = find(".shapes");
  const shapes = JSON.parse(clip.querySelector(".shapes-data").textContent);
  let playing = false;

  function open() {
    for (const video of videos) if (!video.src) video.src = blobAddress(video.dataset.film);
  }

  function close() {
    pause();
    for (const video of videos) {
      URL.revokeObjectURL(video.src);
      video.removeAttribute("src");
      video.load();
    }
  }

  function show() {
    const now = lead.currentTime;
    bar.value = now;
    bar.setAttribute("aria-valuetext", `${now.toFixed(2)} seconds`);
    clock.textContent = `${now.toFixed(2)} / ${length.toFixed(2)} s`;
    heads.forEach((head) => (head.style.left = `${(100 * within(now / length, 0, 1)).toFixed(3)}%`));
    if (!drawing.hasAttribute("hidden")) draw(now);
  }

  function draw(now) {
    let low = 0, high = shapes.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (shapes[middle].t <= now + 0.5 * step) low = middle;
      else high = middle - 1;
    }
    const outline = (polygons) => polygons.map((points) => `M${points.join("L")}Z`).join("");
    drawing.querySelector(".window").setAttribute("d", outline(shapes[low].windows));
    drawing.querySelector(".face").setAttribute("d", outline(shapes[low].faces));
  }

  function seek(time) {
    const to = within(time, 0, Math.max(0, length - 0.25 * step));
    for (const video of videos) video.currentTime = to;
    show();
  }

  // The second video is held to the first by its pace, or put there when it has fallen far behind.
  function keepStep() {
    if (!follow) return;
    const gap = (follow.currentTime - lead.currentTime) / step;
    if (Math.abs(gap) > 2.5 && !follow.seeking) follow.currentTime = lead.currentTime;
    const pace = Math.abs(gap) < 0.15 ? 1 : within(1 - 0.15 * gap, 0.7, 1.3);
    if (follow.playbackRate !== pace) follow.playbackRate = pace;
  }

  function tick() {
    if (!playing) return;
    if (lead.ended) {
      if (!loop.checked) return pause();
      restart();
      return;
    }
    keepStep();
    show();
    requestAnimationFrame(tick);
  }

  const ready = (video) =>
    video.readyState >= 3 && !video.seeking
      ? Promise.resolve()
      : new Promise((done) => {
          const check = () => (video.readyState >= 3 && !video.seeking ? done() : setTimeout(check, 10));
          check();
        });

  async function restart() {
    seek(0);
    await play();
  }

  async function play() {
    playing = true;
    button.textContent = "Pause";
    if (lead.ended || lead.currentTime > length - 1.5 * step) seek(0);
    await Promise.all(videos.map(ready));
    if (!playing) return;
    try {
      await Promise.all(videos.map((video) => video.play()));
    } catch {
      return pause();
    }
    requestAnimationFrame(tick);
  }

  function pause() {
    playing = false;
    button.textContent = "Play";
    videos.forEach((video) => video.pause());
    if (follow) {
      follow.playbackRate = 1;
      follow.currentTime = lead.currentTime;
    }
    show();
  }

  function by(frames) {
    pause();
    seek((Math.floor(lead.currentTime / step + 1e-3) + frames + 0.5) * step);
  }

  function showMasks(on) {
    drawing.toggleAttribute("hidden", !on);
    root.querySelector(".masks-hint").hidden = !on;
    clip.classList.toggle("masked", on);
    if (on) draw(lead.currentTime);
  }

  button.addEventListener("click", () => (playing ? pause() : play()));
  find(".back").addEventListener("click", () => by(-1));
  find(".on").addEventListener("click", () => by(1));
  bar.addEventListener("input", () => {
    pause();
    seek(Number(bar.value));
  });
  if (cut) {
    const place = () => stage.style.setProperty("--cut", `${cut.value}%`);
    cut.addEventListener("input", place);
    place();
  }
  if (masks) masks.addEventListener("change", () => showMasks(masks.checked));
  videos.forEach((video) => video.addEventListener("seeked", show));
  all(clip, ".strip button").forEach((tile) =>
    tile.addEventListener("click", () => {
      pause();
      seek(Number(tile.dataset.time) + 0.25 * step);
    }),
  );
  all(clip, ".box").forEach((box) =>
    box.addEventListener("click", (event) => {
      const place = box.getBoundingClientRect();
      seek((length * (event.clientX - place.left)) / place.width);
    }),
  );
  const keys = {
    " ": () => (playing ? pause() : play()),
    ",": () => by(-1),
    ".": () => by(1),
    m: () => masks && masks.click(),
  };
  return { open, close, keys };
}

function makeIndex(index, table) {
  const body = table.tBodies[0], titles = [...table.tHead.rows[0].cells];
  const compare = {
    number: (a, b) => Number(a) - Number(b),
    text: (a, b) => a.localeCompare(b, undefined, { numeric: true }),
  };
  titles.forEach((title, place) => {
    title.querySelector("button").addEventListener("click", () => {
      const falling = title.getAttribute("aria-sort") === "ascending";
      titles.forEach((other) => other.removeAttribute("aria-sort"));
      title.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const value = (row) => row.cells[place].dataset.value;
      const rows = [...body.rows].sort((one, two) => {
        const [a, b] = [value(one), value(two)];
        if (a === "" || b === "") return (a === "") - (b === ""); // what is not computed comes last, either way
        return (falling ? -1 : 1) * compare[title.dataset.kind](a, b);
      });
      body.append(...rows);
    });
  });
  return index;
}

const clips = all(document, ".clip");
const players = clips.map(makePlayer);
const index = document.getElementById("index");
if (index) makeIndex(index, index.querySelector("table"));
let current = -1;

// One clip at a time, or the index of all.
function turn() {
  const wanted = clips.findIndex((clip) => `#${clip.id}` === location.hash);
  const next = index ? wanted : 0;
  if (next === current) return;
  if (players[current]) players[current].close();
  current = next;
  clips.forEach((clip, k) => (clip.hidden = k !== next));
  if (index) index.hidden = next !== -1;
  if (players[next]) players[next].open();
  window.scrollTo(0, 0);
}

window.addEventListener("hashchange", turn);
current = -2;
turn();

document.addEventListener("keydown", (event) => {
  const player = players[current], key = event.key.toLowerCase();
  if (!player || event.ctrlKey || event.metaKey || event.altKey || !(key in player.keys)) return;
  if (key === " " && event.target.closest("button, summary, a, input[type=checkbox]")) return;
  event.preventDefault();
  player.keys[key]();
});
