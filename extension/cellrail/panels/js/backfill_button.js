// A button that starts a backfill.

rooms.backfill_button = (ctx) => press_room(ctx, "backfill", { starting: "queued", done: "success", paused: "suspended" });
