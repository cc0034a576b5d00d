. /tmp/scratch/H/env.sh
python -m pipeline.sources.scenes --output $H/cv --items 60 --val 12 --test 12 --languages de --videos 0.3 2>&1 | tail -3
K="$T2 --recipe base --data $H/c --output"
KS="$S lr=1e-3 steps=40"
K1="$T --recipe base --data $H/c --output"
t k_ref $K $H/kref $KS
for sig in KILL TERM; do
 rm -rf $H/k$sig
 setsid $K $H/k$sig $KS > $H/log/k$sig.out 2>$H/log/k$sig.err & P=$!
 for i in $(seq 600); do [ "$(grep -c train $H/k$sig/metrics.jsonl 2>/dev/null)" -ge 15 ] 2>/dev/null && break; sleep .1; done
 kill -$sig $P; wait $P; echo "$sig rc=$?"; sleep 4; echo left: ; ps -eo pid,args | grep "H/k$sig" | grep -v grep | head -3; tail -3 $H/log/k$sig.err $H/log/k$sig.out; grep -h '^error' $H/log/k$sig.err
 ls $H/k$sig/checkpoints
 t k_res$sig $K $H/k$sig $KS --resume
 python - $H/kref $H/k$sig <<'P'
import json,sys
a,b=[[json.loads(l) for l in open(p+'/metrics.jsonl')] for p in sys.argv[1:]]
f=lambda x:[{k:v for k,v in l.items() if k not in('samples_per_s','data_wait')} for l in x]
print('IDENTICAL' if f(a)==f(b) else 'DIFFER',len(a),len(b))
P
 cmp $H/kref/best/model.safetensors $H/k$sig/best/model.safetensors && echo best same
done
