// What the cases of L3 proxying send packets with, and a tailscaled that is told what it knows. Standard library only.
module tailpod.invalid/real/netns

go 1.26.0
