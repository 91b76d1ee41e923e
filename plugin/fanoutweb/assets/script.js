// The page works without this. It keeps what changes up to date, shows times in the
// reader's zone, and helps with selections.
(function () {
  "use strict";
  var live = document.body.dataset.live;
  var pulse = document.getElementById("pulse"), pulseText = document.getElementById("pulse-text");
  var source = null, timer = 0, paused = false, over = false;

  function times(root) {
    root.querySelectorAll("time[datetime]").forEach(function (t) {
      var at = new Date(t.getAttribute("datetime"));
      if (isNaN(at)) return;
      var sameDay = at.toDateString() === new Date().toDateString();
      var text = sameDay ? at.toLocaleTimeString() : at.toLocaleString();
      if (t.textContent !== text) t.textContent = text;
      t.title = t.getAttribute("datetime");
    });
  }

  // morph makes one element like another, and keeps what stays: focus, scrolling, what is open.
  function morph(from, to) {
    if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName) {
      from.replaceWith(document.importNode(to, true));
      return;
    }
    if (from.nodeType !== Node.ELEMENT_NODE) {
      if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
      return;
    }
    Array.from(to.attributes).forEach(function (a) {
      if (from.getAttribute(a.name) !== a.value) from.setAttribute(a.name, a.value);
    });
    Array.from(from.attributes).forEach(function (a) {
      if (!to.hasAttribute(a.name) && a.name !== "open") from.removeAttribute(a.name);
    });
    children(from, to);
  }

  // key tells which elements are the same thing in two versions of a page.
  function key(n) {
    return n.nodeName + " " + (n.id || n.dataset.key || n.getAttribute("aria-labelledby") || n.classList[0] || "");
  }

  function children(from, to) {
    var old = Array.from(from.childNodes), o = 0;
    Array.from(to.childNodes).forEach(function (fresh) {
      var at = o;
      if (fresh.nodeType === Node.ELEMENT_NODE) {
        while (at < old.length && (old[at].nodeType !== Node.ELEMENT_NODE || key(old[at]) !== key(fresh))) at++;
      } else if (at < old.length && old[at].nodeType !== fresh.nodeType) at = old.length;
      if (at >= old.length) {
        from.insertBefore(document.importNode(fresh, true), old[o] || null);
        return;
      }
      while (o < at) old[o++].remove();
      morph(old[o++], fresh);
    });
    while (o < old.length) old[o++].remove();
  }

  function apply(html) {
    var part = document.querySelector("[data-part]");
    if (!part) return;
    var fresh = new DOMParser().parseFromString(html, "text/html");
    var to = fresh.querySelector("[data-part]");
    if (!to) {
      to = fresh.createElement("div");
      to.dataset.part = part.dataset.part;
      while (fresh.body.firstChild) to.appendChild(fresh.body.firstChild);
    }
    times(to); // before, so that what stays is not written again
    morph(part, to);
    document.dispatchEvent(new Event("updated"));
  }

  function state(name, text) {
    if ("quiet" in document.body.dataset) return;
    pulse.hidden = false;
    pulse.dataset.state = name;
    if (pulseText.textContent !== text) pulseText.textContent = text;
    pulse.title = paused ? "Show changes again" : "Stop showing changes";
  }

  function stop() {
    if (source) source.close();
    source = null;
    clearTimeout(timer);
  }

  function poll() {
    clearTimeout(timer);
    timer = setTimeout(function () {
      fetch(location.href, { headers: { Accept: "text/html" } }).then(function (r) {
        if (!r.ok) throw new Error(r.status);
        return r.text();
      }).then(function (html) {
        state("poll", "every 5 s");
        apply(html);
        start(); // perhaps there is room for a live page now
      }, function () {
        state("lost", "not reachable");
        poll();
      });
    }, 5000);
  }

  function start() {
    stop();
    if (!live || paused || over || document.hidden) return;
    source = new EventSource(live);
    source.addEventListener("part", function (e) {
      state("live", "live");
      apply(e.data);
    });
    source.addEventListener("end", function () {
      over = true;
      stop();
      state("over", "ended");
    });
    source.onerror = function () {
      if (source && source.readyState === EventSource.CLOSED) {
        stop();
        poll();
      } else state("lost", "reconnecting");
    };
  }

  if (live) {
    pulse.addEventListener("click", function () {
      paused = !paused;
      if (paused) {
        stop();
        state("paused", "paused");
      } else {
        over = false;
        state("poll", "…");
        start();
      }
    });
    document.addEventListener("visibilitychange", function () {
      if (document.hidden) stop();
      else start();
    });
    window.addEventListener("pagehide", stop);
    window.addEventListener("pageshow", function (e) { if (e.persisted) start(); });
    start();
  }

  // Of a table one selects rows, and all of them by the box in its head.
  document.querySelectorAll("form[data-select]").forEach(function (form) {
    var all = form.querySelector("[data-all]"), count = form.querySelector("[data-count]");
    function boxes() { return Array.from(form.querySelectorAll("input[name=id]")); }
    function show() {
      var n = boxes().filter(function (b) { return b.checked; }).length;
      if (count) count.textContent = n === 0 ? "None selected" : n + " selected";
      if (all) {
        all.checked = n > 0 && n === boxes().length;
        all.indeterminate = n > 0 && !all.checked;
      }
      form.querySelectorAll("[data-needs]").forEach(function (b) { b.disabled = n === 0; });
    }
    if (all) {
      all.closest("label").hidden = false;
      all.addEventListener("change", function () {
        boxes().forEach(function (b) { b.checked = all.checked; });
        show();
      });
    }
    form.addEventListener("change", show);
    show();
  });

  document.addEventListener("keydown", function (e) {
    if (e.key !== "/" || e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(e.target.nodeName)) return;
    var field = document.querySelector("[data-key='/']");
    if (field) {
      e.preventDefault();
      field.focus();
      field.select();
    }
  });

  times(document);
})();
