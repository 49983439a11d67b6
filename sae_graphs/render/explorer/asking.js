// What the page does not hold is asked of `sae-graphs view`, which served it.

const GONE = "`sae-graphs view` does not answer any more: start it again";

if (data.whatIf) {
  askServer = async (set) => {
    const changes = Object.fromEntries(Object.entries(set).map(([id, value]) => [id, value === "off" ? value : `x${value}`]));
    try {
      const reply = await fetch("what-if", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ changes }),
      });
      return await reply.json();
    } catch {
      return { problem: GONE };
    }
  };
}
