// The page of metriloc serve: two photos, or a photo and a map, to the service and back.
"use strict";
(() => {
  const form = document.getElementById("form");
  const byId = (id) => document.getElementById(id);
  const field = (name) => form.elements.namedItem(name);
  const photos = { reference: null, query: null };
  let running = null; // what stops the request that is on its way

  // ---------------------------------------------------------------- photos: chosen, taken, dropped
  for (const role of Object.keys(photos)) {
    const place = byId(`${role}-part`);
    for (const input of place.querySelectorAll("input[type=file]")) {
      input.addEventListener("change", () => input.files.length && choose(role, input.files[0]));
    }
    place.addEventListener("dragover", (event) => {
      event.preventDefault();
      place.classList.add("over");
    });
    place.addEventListener("dragleave", () => place.classList.remove("over"));
    place.addEventListener("drop", (event) => {
      event.preventDefault();
      place.classList.remove("over");
      if (event.dataTransfer.files.length) choose(role, event.dataTransfer.files[0]);
    });
  }

  function choose(role, file) {
    photos[role] = file;
    const image = byId(`${role}-part`).querySelector("img");
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(file);
    image.hidden = false;
    image.onerror = () => { image.hidden = true; }; // not every browser shows every photo that the service reads
    byId(`${role}-part`).querySelector(".chosen").textContent = `${file.name}, ${(file.size / 1e6).toFixed(1)} MB`;
    say("");
  }

  // ---------------------------------------------------------------- maps
  for (const radio of form.querySelectorAll("input[name=mode]")) radio.addEventListener("change", showMode);

  function showMode() {
    const mode = field("mode").value;
    for (const part of form.querySelectorAll("[data-of]")) part.hidden = part.dataset.of !== mode;
    if (mode === "map") listMaps();
  }

  async function listMaps(chosen) {
    try {
      const maps = await asked("GET", "/v1/maps?count=1000");
      field("map").replaceChildren(...maps.map((map) => {
        const option = new Option(`${map.name} (${map.photos} photos, ${map.points} points)`, map.id);
        option.selected = map.id === chosen;
        return option;
      }));
      byId("map-hint").textContent = maps.length ? "" : "There is no map yet: leave one that metriloc map bundle made.";
    } catch (error) {
      complain(error);
    }
  }

  field("bundle").addEventListener("change", () => attempt("Leaving the map", async (signal) => {
    const sent = new FormData();
    sent.append("bundle", field("bundle").files[0]);
    const map = await asked("POST", "/v1/maps", sent, signal);
    await listMaps(map.id);
    say(`${map.name} is here.`);
  }));

  // ---------------------------------------------------------------- asking
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const missing = missed();
    if (missing) {
      complain(new Error(missing[1]));
      missing[0].focus();
    } else {
      attempt("Looking at the photos", field("mode").value === "map" ? placeInMap : placePair);
    }
  });
  byId("cancel").addEventListener("click", () => running && running.abort());

  function missed() {
    const pair = field("mode").value === "pair";
    if (pair && !photos.reference) return [field("reference"), "The first photo is missing: choose or take one."];
    if (!pair && !field("map").value) return [field("map"), "There is no map to look in: leave one first."];
    if (!photos.query) return [field("query"), "The photo to place is missing: choose or take one."];
    for (const name of pair ? ["reference-fov", "query-fov", "distance"] : ["query-fov"]) {
      if (!field(name).checkValidity()) return [field(name), `${field(name).value || "This"} cannot be: ${field(name).validationMessage}`];
    }
    return null;
  }

  function formOf(role, more) {
    const sent = new FormData();
    sent.append("photo", photos[role], photos[role].name);
    for (const [name, value] of Object.entries({ fov: field(`${role}-fov`).value, ...more })) {
      if (value !== "") sent.append(name, value);
    }
    return sent;
  }

  async function placePair(signal) {
    const anchor = await asked("POST", "/v1/anchors", formOf("reference", { distance: field("distance").value }), signal);
    try {
      show(await asked("POST", `/v1/anchors/${anchor.id}/poses`, formOf("query", { report: "true" }), signal));
    } finally {
      asked("DELETE", `/v1/anchors/${anchor.id}`).catch(() => {}); // it may have expired
    }
  }

  async function placeInMap(signal) {
    show(await asked("POST", `/v1/maps/${field("map").value}/poses`, formOf("query", { report: "true" }), signal));
  }

  async function attempt(what, work) {
    if (running) return;
    running = new AbortController();
    const since = Date.now();
    const tell = () => say(`${what}: ${Math.round((Date.now() - since) / 1000)} s`);
    const clock = setInterval(tell, 5000); // seldom, because it is read aloud
    byId("error").hidden = byId("result").hidden = true;
    byId("cancel").hidden = false;
    form.querySelector("button[type=submit]").disabled = true;
    say(`${what} ...`);
    try {
      await work(running.signal);
    } catch (error) {
      complain(error);
    } finally {
      clearInterval(clock);
      running = null;
      byId("cancel").hidden = true;
      form.querySelector("button[type=submit]").disabled = false;
    }
  }

  async function asked(method, path, body, signal) {
    const headers = field("token").value ? { Authorization: `Bearer ${field("token").value.trim()}` } : {};
    let response;
    try {
      response = await fetch(path, { method, body, signal, headers });
    } catch (error) {
      if (error.name === "AbortError") throw new Error("Cancelled.");
      throw new Error("The service does not answer: is it running, and are you connected?");
    }
    if (response.status === 401) {
      byId("token-part").hidden = false;
      field("token").focus();
    }
    if (response.status === 204) return null;
    const content = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(content.detail || `The service answered ${response.status}.`);
    return content;
  }

  // ---------------------------------------------------------------- showing
  function show(answer) {
    const [first, ...lines] = answer.summaries[0];
    byId("verdict").textContent = first;
    byId("verdict").className = `verdict ${stateOf(answer.queries[0])}`;
    byId("lines").replaceChildren(...lines.map((line) => {
      const item = document.createElement("li");
      item.textContent = line.trim();
      return item;
    }));
    const page = answer.reports[0] || "";
    byId("report").hidden = byId("save").hidden = !page;
    byId("report").srcdoc = page;
    URL.revokeObjectURL(byId("save").href);
    byId("save").href = URL.createObjectURL(new Blob([page], { type: "text/html" }));
    byId("result").hidden = false;
    say("Done.");
    byId("result").focus();
  }

  function stateOf(query) {
    if (!query.success || query.verdict === "failed") return "failed";
    return query.verdict === "doubtful" || query.metric === false ? "direction" : "found";
  }

  function say(text) {
    byId("status").textContent = text;
  }

  function complain(error) {
    say("");
    byId("error").textContent = error.message;
    byId("error").hidden = false;
  }

  showMode();
})();
